"""From the bytes of a request to an object of the served type.

As in the real server, decoding drops fields that the type does not have (and reports them), refuses values
of a wrong type with 400, forgets nulls and writes quantities and times in their one form.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import orjson

from konverge.lab.apiserver.clock import parse_time
from konverge.lab.apiserver.kinds import ResourceKind
from konverge.lab.apiserver.protobuf import MEDIA, decode_protobuf
from konverge.lab.apiserver.quantities import canonicalize
from konverge.lab.apiserver.schemas import Node
from konverge.lab.apiserver.statuses import bad_request, unsupported_media
from konverge.lab.apiserver.store import Object, copy_json

JSON_TYPES = ("application/json", "application/yaml", MEDIA)
GO_TYPES = {"string": "string", "integer": "int32", "number": "float64", "boolean": "bool", "bytes": "[]uint8"}
JSON_NAMES = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}


@dataclass(slots=True)
class Decoded:
    """An object with what was odd about it: ``unknown`` are the fields that were dropped."""

    object: Object
    unknown: list[str] = field(default_factory=list)


def parse_body(raw: bytes, content_type: str, accepted: tuple[str, ...] = JSON_TYPES) -> Any:
    """Return the decoded body; 415 for a foreign content type, 400 for a malformed one."""
    kind = content_type.partition(";")[0].strip().lower() or "application/json"
    if kind == MEDIA and accepted is JSON_TYPES:
        return decode_protobuf(raw)
    if kind not in accepted:
        raise unsupported_media(accepted)
    if kind.endswith("yaml"):
        return _parse_yaml(raw)
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        shown = raw[:200].decode("utf-8", "replace")
        raise bad_request(f"couldn't get version/kind; json parse error: {error} ({shown})") from error


def _parse_yaml(raw: bytes) -> Any:
    if raw.lstrip()[:1] == b"{":
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        parsed = yaml.load(raw, Loader=loader)  # noqa: S506 - a safe loader either way
    except yaml.YAMLError as error:
        raise bad_request(f"error parsing YAML: {error}") from error
    return orjson.loads(orjson.dumps(parsed, option=orjson.OPT_NON_STR_KEYS, default=_encode_odd))


def _encode_odd(value: Any) -> str:
    return str(value.isoformat() if hasattr(value, "isoformat") else value)


def decode_object(kind: ResourceKind, body: Any) -> Decoded:
    """Check that a body is an object of ``kind`` and bring it into the type's shape."""
    if not isinstance(body, dict):
        raise bad_request("couldn't get version/kind; json parse error: expected an object")
    given = (body.get("apiVersion") or kind.api_version, body.get("kind") or kind.kind)
    if given != (kind.api_version, kind.kind):
        version, name = given[0].rpartition("/")[2], given[1]
        raise bad_request(
            f'{name} in version "{version}" cannot be handled as a {kind.kind}: '
            f"converting ({version}.{name}) to ({kind.version}.{kind.kind}): unknown conversion"
        )
    decoded = Decoded(body)
    if kind.node is not None and kind.custom is None:
        decoded.object = decode_typed(kind, body, decoded.unknown)
    else:
        metadata = body.get("metadata")
        decoded.object = copy_json(body)
        decoded.object["metadata"] = _decode_metadata(kind, metadata or {}, decoded.unknown)
    decoded.object["apiVersion"], decoded.object["kind"] = kind.api_version, kind.kind
    decoded.object.setdefault("metadata", {})
    return decoded


def decode_typed(kind: ResourceKind, body: Object, unknown: list[str]) -> Object:
    """Bring a body into the shape of a built-in type; dropped fields are added to ``unknown``."""
    assert kind.node is not None
    walker = _Walker(kind, unknown)
    decoded: Object = walker.walk(kind.node, body, "", kind.kind)
    return decoded


def _decode_metadata(kind: ResourceKind, metadata: Any, unknown: list[str]) -> Object:
    from konverge.lab.apiserver.schemas import load_types

    decoded: Object = _Walker(kind, unknown).walk(
        load_types()["meta.v1.ObjectMeta"], metadata, "metadata", "ObjectMeta"
    )
    return decoded


class _Walker:
    """Converts a value along its node; keeps the kind for messages."""

    def __init__(self, kind: ResourceKind, unknown: list[str]) -> None:
        self._kind = kind
        self._unknown = unknown

    def walk(self, node: Node, value: Any, path: str, owner: str) -> Any:
        """Return the converted value; 400 where the type is wrong."""
        if node.kind == "struct":
            return self._walk_struct(node, value, path, owner)
        if node.kind == "map":
            return self._walk_map(node, value, path, owner)
        if node.kind == "list":
            return self._walk_list(node, value, path, owner)
        return copy_json(value) if node.kind == "any" else self._walk_scalar(node.kind, value, path, owner)

    def _walk_struct(self, node: Node, value: Any, path: str, owner: str) -> Object:
        if not isinstance(value, dict):
            raise self._mismatch(value, path, owner, node)
        assert node.struct is not None
        fields = node.struct.fields
        result: Object = {}
        name = node.struct.name.rpartition(".")[2]
        for key, item in value.items():
            child = fields.get(key)
            where = f"{path}.{key}" if path else key
            if child is None:
                self._unknown.append(where)
            elif item is not None:
                result[key] = self.walk(child, item, where, name)
        return result

    def _walk_map(self, node: Node, value: Any, path: str, owner: str) -> Object:
        if not isinstance(value, dict):
            raise self._mismatch(value, path, owner, node)
        assert node.element is not None
        element = node.element
        return {
            key: self.walk(element, "" if item is None and element.kind == "string" else item, f"{path}.{key}", owner)
            for key, item in value.items()
            if item is not None or element.kind == "string"
        }

    def _walk_list(self, node: Node, value: Any, path: str, owner: str) -> list[Any]:
        if not isinstance(value, list):
            raise self._mismatch(value, path, owner, node)
        assert node.element is not None
        element = node.element
        return [
            self.walk(element, item, f"{path}[{index}]", owner)
            for index, item in enumerate(value)
            if item is not None
        ]

    def _walk_scalar(self, kind: str, value: Any, path: str, owner: str) -> Any:
        try:
            return convert_scalar(kind, value)
        except (TypeError, ValueError) as error:
            raise self._mismatch(value, path, owner, Node(kind), error) from error

    def _mismatch(self, value: Any, path: str, owner: str, node: Node, error: Exception | None = None) -> Exception:
        version = self._kind.version
        prefix = f'{self._kind.kind} in version "{version}" cannot be handled as a {self._kind.kind}: '
        if isinstance(error, ValueError):
            return bad_request(f"{prefix}{error}")
        plain = re.sub(r"\[\d+\]", "", path)
        got = JSON_NAMES.get(type(value), "null")
        want = _show_type(node)
        return bad_request(
            f"{prefix}json: cannot unmarshal {got} into Go struct field {owner}.{plain} of type {want}"
        )


def _show_type(node: Node) -> str:
    """Return a type as Go's decoder names it."""
    if node.struct is not None:
        return ".".join(node.struct.name.split(".")[-2:])
    if node.kind == "list" and node.element is not None:
        return "[]" + _show_type(node.element)
    if node.kind == "map" and node.element is not None:
        return "map[string]" + _show_type(node.element)
    return GO_TYPES.get(node.kind, node.kind)


def convert_scalar(kind: str, value: Any) -> Any:
    """Return a scalar in its one form; TypeError or ValueError where it does not fit ``kind``."""
    if kind == "string":
        return _expect(value, str)
    if kind == "boolean":
        return _expect(value, bool)
    if kind == "integer":
        return _convert_integer(value)
    if kind == "number":
        return _expect_number(value)
    return _convert_special(kind, value)


def _convert_special(kind: str, value: Any) -> Any:
    if kind == "int-or-string":
        return value if isinstance(value, str) else _convert_integer(value)
    if kind == "quantity":
        return canonicalize(str(value) if isinstance(value, (int, float)) else _expect(value, str))
    if kind in ("time", "microtime"):
        return _convert_time(kind, _expect(value, str))
    try:
        base64.b64decode(_expect(value, str).replace("\n", ""), validate=True)
    except binascii.Error as error:
        raise ValueError(f"illegal base64 data: {error}") from error
    return value


def _expect(value: Any, wanted: type) -> Any:
    if not isinstance(value, wanted):
        raise TypeError(value)
    return value


def _expect_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(value)
    return value


def _convert_integer(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(value)
    return value


def _convert_time(kind: str, value: str) -> str:
    moment = parse_time(value).astimezone(UTC)
    style = "%Y-%m-%dT%H:%M:%S.%fZ" if kind == "microtime" else "%Y-%m-%dT%H:%M:%SZ"
    return moment.strftime(style)
