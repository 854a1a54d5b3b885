"""The four kinds of patch and their content types."""

from __future__ import annotations

from typing import Any

from konverge.lab.apiserver.decoding import parse_body
from konverge.lab.apiserver.kinds import ResourceKind
from konverge.lab.apiserver.merging.strategic import patch_strategic
from konverge.lab.apiserver.statuses import StatusError, bad_request, unsupported_media
from konverge.lab.apiserver.store import Object, copy_json

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
REJECTED = "the server rejected our request due to an error in our request"
MAX_OPERATIONS = 10_000


def accepted_types(kind: ResourceKind) -> tuple[str, ...]:
    """Return the content types that a resource can be patched with; custom ones know no strategic merge."""
    return (JSON, MERGE, APPLY) if kind.custom else (JSON, MERGE, STRATEGIC, APPLY)


def parse_patch(kind: ResourceKind, raw: bytes, content_type: str) -> tuple[str, Any]:
    """Return the content type and the decoded patch."""
    media = content_type.partition(";")[0].strip().lower()
    accepted = accepted_types(kind)
    if media not in accepted:
        if media == STRATEGIC:
            raise unsupported_media(accepted)
        raise StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
    return media, parse_body(raw, content_type, accepted)


def patch_object(kind: ResourceKind, media: str, original: Object, patch: Any) -> Object:
    """Return the patched object."""
    if media == JSON:
        return patch_json(original, patch)
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: expected an object")
    if media == MERGE:
        merged: Object = merge_json(original, patch)
        return merged
    assert kind.node is not None
    result: Object = patch_strategic(kind.node, original, patch)
    return result


def merge_json(original: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386): null deletes, everything but objects replaces."""
    if not isinstance(patch, dict):
        return copy_json(patch)
    result = dict(original) if isinstance(original, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_json(result.get(key), value)
    return result


def patch_json(original: Object, patch: Any) -> Object:
    """Apply a JSON patch (RFC 6902); 422 where an operation cannot be done."""
    if not isinstance(patch, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if len(patch) > MAX_OPERATIONS:
        raise bad_request(f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(patch)}")
    import jsonpatch

    try:
        result: Object = jsonpatch.apply_patch(copy_json(original), patch)
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, KeyError, TypeError) as error:
        raise StatusError(422, "Invalid", REJECTED, {}) from error
    return result
