"""Create, replace and patch: from a request to a committed object.

One pipeline for all kinds: decode, prepare, default, admit, validate, note the owners of fields, commit.
Status and the rest of an object are isolated from each other where the kind has a status subresource.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from konverge.lab.apiserver import admission
from konverge.lab.apiserver.custom.shaping import shape_custom
from konverge.lab.apiserver.decoding import decode_object, parse_body
from konverge.lab.apiserver.eventing import from_events_v1
from konverge.lab.apiserver.kindrules import rules_of
from konverge.lab.apiserver.kinds import ResourceKind
from konverge.lab.apiserver.merging.managing import (
    Manager,
    apply_configuration,
    track_update,
    write_managers,
)
from konverge.lab.apiserver.merging.patching import APPLY, parse_patch, patch_object
from konverge.lab.apiserver.metadata import (
    check_changed_metadata,
    check_identity,
    check_metadata,
    refuse,
    stamp_changed,
    stamp_new,
)
from konverge.lab.apiserver.removing import finish_if_released
from konverge.lab.apiserver.requests import Request
from konverge.lab.apiserver.schemas.nodes import ANY
from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.statuses import (
    StatusError,
    already_exists,
    bad_request,
    conflict,
    method_not_allowed,
    not_found,
    wrong,
)
from konverge.lab.apiserver.store import Entry, Object, copy_json

CREATE_ON_UPDATE = frozenset(
    {"Lease", "Event", "Endpoints", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding", "LimitRange"}
)
"""Kinds that PUT creates where they are missing."""
NO_UNCONDITIONAL_UPDATE = frozenset(
    {"Lease", "PodDisruptionBudget", "CustomResourceDefinition", "ServiceAccount", "CSINode"}
)
"""Built-in kinds whose PUT needs a resourceVersion; so do all custom resources."""
RETRIES = 5


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of a write; ``entry`` is not stored after a dry run."""

    code: int
    entry: Entry


async def create_object(state: State, request: Request) -> Written:
    """Serve POST on a collection."""
    kind = request.need_kind()
    body = parse_body(request.body, request.headers.get("Content-Type", ""))
    obj = _decode(request, kind, body)
    if not obj["metadata"].get("name") and not obj["metadata"].get("generateName"):
        refuse(kind, obj, check_metadata(kind, obj))
    return await store_new(state, request, kind, obj, _manager(request, kind, "Update"))


async def store_new(state: State, request: Request, kind: ResourceKind, obj: Object, manager: Manager) -> Written:
    """Prepare, check and commit an object that is new."""
    explicit = "managedFields" in obj["metadata"] and manager.operation == "Apply"
    stamp_new(obj, request, state.clock.stamp())
    name = obj["metadata"].get("name") or ""
    if state.store.collection(kind.storage).get(request.namespace, name) is not None:
        raise already_exists(kind, name)
    admission.check_namespace(state, request, kind, obj)
    _shape_new(state, kind, obj)
    await admission.admit(state, request, kind, obj, None)
    _validate(state, kind, obj, None)
    if not explicit:
        track_update(kind.node or ANY, None, obj, manager, state.clock.stamp())
    if state.store.collection(kind.storage).get(request.namespace, name) is not None:
        raise already_exists(kind, name)
    if request.dry_run:
        return Written(201, Entry(obj, 0))
    rules_of(kind).commit(state, obj, None)
    return Written(201, state.store.put(kind.storage, obj))


def _shape_new(state: State, kind: ResourceKind, obj: Object) -> None:
    rules = rules_of(kind)
    if "status" in kind.subresources and not rules.keeps_status:
        obj.pop("status", None)
    if kind.custom is not None:
        shape_custom(kind, obj)
    rules.prepare_new(state, obj)
    rules.default(obj)


def _validate(state: State, kind: ResourceKind, obj: Object, old: Object | None) -> None:
    causes = check_metadata(kind, obj)
    if old is not None:
        causes += check_changed_metadata(obj, old)
    if kind.custom is not None:
        causes += kind.custom.validate(obj, old) if kind.custom.validate else []
    refuse(kind, obj, causes + rules_of(kind).check(state, obj, old))


async def update_object(state: State, request: Request) -> Written:
    """Serve PUT on an object or its status."""
    kind = request.need_kind()
    obj = _decode(request, kind, parse_body(request.body, request.headers.get("Content-Type", "")))
    check_identity(kind, obj, request.name, request.namespace)
    current = state.store.collection(kind.storage).get(request.namespace, request.name)
    if current is None and kind.kind in CREATE_ON_UPDATE and not request.subresource:
        return await store_new(state, request, kind, obj, _manager(request, kind, "Update"))
    if current is not None and not obj["metadata"].get("resourceVersion"):
        conditional = kind.custom is not None or kind.kind in NO_UNCONDITIONAL_UPDATE
        if conditional:
            refuse(kind, obj, [wrong("metadata.resourceVersion", 0, "must be specified for an update")])
    return await change_object(state, request, kind, lambda _: obj)


async def change_object(
    state: State, request: Request, kind: ResourceKind, build: Callable[[Object], Object]
) -> Written:
    """Commit what ``build`` makes of the current object; it is called again where a writer came between."""
    manager = _manager(request, kind, "Update")
    for _ in range(RETRIES):
        current = state.store.collection(kind.storage).get(request.namespace, request.name)
        if current is None:
            raise not_found(kind, request.name)
        obj = build(current.object)
        _check_preconditions(kind, obj, current)
        if obj is current.object:
            return Written(200, current)
        _isolate(kind, obj, current.object, request.subresource)
        _shape_changed(state, kind, obj, current.object, request.subresource)
        await admission.admit(state, request, kind, obj, current.object)
        _validate(state, kind, obj, current.object)
        track_update(kind.node or ANY, current.object, obj, manager, state.clock.stamp())
        if state.store.collection(kind.storage).get(request.namespace, request.name) is current:
            return _commit_change(state, request, kind, obj, current)
    raise conflict(kind, request.name)


def _check_preconditions(kind: ResourceKind, obj: Object, current: Entry) -> None:
    metadata, before = obj["metadata"], current.object["metadata"]
    given = metadata.get("uid")
    if given and given != before["uid"]:
        raise conflict(
            kind,
            before["name"],
            f"StorageError: invalid object, Code: 4, Key: /registry/{kind.plural}/"
            f"{before.get('namespace', '')}/{before['name']}, ResourceVersion: 0, AdditionalErrorMsg: "
            f"Precondition failed: UID in precondition: {given}, UID in object meta: {before['uid']}",
        )
    version = metadata.get("resourceVersion")
    if version and version not in ("0", before["resourceVersion"]):
        raise conflict(kind, before["name"])


def _isolate(kind: ResourceKind, obj: Object, old: Object, subresource: str) -> None:
    """Keep the part of the object that this address does not write."""
    if subresource == "status":
        managed = obj["metadata"].get("managedFields")
        for key in [key for key in obj if key not in ("status", "apiVersion", "kind", "metadata")]:
            del obj[key]
        obj |= {key: value for key, value in old.items() if key not in ("status", "apiVersion", "kind", "metadata")}
        metadata = copy_json(old["metadata"])
        if rules_of(kind).status_writes_labels:
            for name in ("labels", "annotations"):
                metadata[name] = obj["metadata"].get(name) or {}
        obj["metadata"] = metadata
        if managed is not None:
            metadata["managedFields"] = managed
    elif "status" in kind.subresources:
        obj.pop("status", None)
        if "status" in old:
            obj["status"] = old["status"]


def _shape_changed(state: State, kind: ResourceKind, obj: Object, old: Object, subresource: str) -> None:
    stamp_changed(obj, old)
    obj["metadata"].pop("resourceVersion", None)
    if kind.custom is not None:
        shape_custom(kind, obj)
    rules_of(kind).prepare_change(state, obj, old, subresource)
    rules_of(kind).default(obj)
    if kind.generated and _desires_differ(kind, obj, old):
        obj["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1


def _desires_differ(kind: ResourceKind, obj: Object, old: Object) -> bool:
    outside = {"metadata", "apiVersion", "kind"} | ({"status"} if "status" in kind.subresources else set())
    if kind.kind == "Deployment":
        changed = obj["metadata"].get("annotations") != old["metadata"].get("annotations")
        if changed:
            return True
    return any(obj.get(key) != old.get(key) for key in (obj.keys() | old.keys()) - outside)


def _commit_change(state: State, request: Request, kind: ResourceKind, obj: Object, current: Entry) -> Written:
    obj["metadata"]["resourceVersion"] = current.object["metadata"]["resourceVersion"]
    obj["apiVersion"], obj["kind"] = current.object["apiVersion"], current.object["kind"]
    if obj == current.object:
        return Written(200, current)
    if request.dry_run:
        return Written(200, Entry(obj, current.version))
    rules_of(kind).commit(state, obj, current.object)
    return Written(200, finish_if_released(state, kind, obj) or state.store.put(kind.storage, obj))


async def patch_object_at(state: State, request: Request) -> Written:
    """Serve PATCH on an object or its status."""
    kind = request.need_kind()
    media, patch = parse_patch(kind, request.body, request.headers.get("Content-Type", ""))
    if media == APPLY:
        return await apply_object(state, request, kind, patch)
    if request.flag("force"):
        raise _refuse_option("force", "may not be specified for non-apply patch")

    def build(current: Object) -> Object:
        shown = current if kind.custom is None else {**current, "apiVersion": kind.api_version}
        patched = patch_object(kind, media, shown, patch)
        if not isinstance(patched.get("metadata"), dict):
            raise bad_request("metadata: expected an object")
        obj = _decode(request, kind, patched)
        check_identity(kind, obj, request.name, request.namespace)
        if obj["metadata"].get("resourceVersion") == current["metadata"]["resourceVersion"]:
            obj["metadata"].pop("resourceVersion")
        return obj

    return await change_object(state, request, kind, build)


def _refuse_option(field: str, text: str) -> Exception:
    message = f'PatchOptions.meta.k8s.io "" is invalid: {field}: Forbidden: {text}'
    details = {
        "group": "meta.k8s.io",
        "kind": "PatchOptions",
        "causes": [{"reason": "FieldValueForbidden", "message": f"Forbidden: {text}", "field": field}],
    }
    return StatusError(422, "Invalid", message, details)


async def apply_object(state: State, request: Request, kind: ResourceKind, body: object) -> Written:
    """Serve server-side apply: creates, or merges and notes who owns what."""
    if not request.query.get("fieldManager"):
        raise _refuse_required_manager()
    if not isinstance(body, dict) or not body.get("apiVersion") or not body.get("kind"):
        raise bad_request("error decoding apply patch: Object 'Kind' is missing")
    applied = _decode(request, kind, drop_nulls(body))
    check_identity(kind, applied, request.name, request.namespace)
    if applied["metadata"].pop("managedFields", None):
        raise bad_request("metadata.managedFields must be nil")
    manager = _manager(request, kind, "Apply")
    version = applied["metadata"].pop("resourceVersion", None)
    uid = applied["metadata"].pop("uid", None)
    _drop_foreign_part(kind, applied, request.subresource)
    current = state.store.collection(kind.storage).get(request.namespace, request.name)
    if current is None:
        if request.subresource:
            raise not_found(kind, request.name)
        if uid or version:
            raise conflict(
                kind,
                request.name,
                f"uid mismatch: the provided object specified uid {uid}, and no existing object was found",
            )
        obj, managers = apply_configuration(kind.node or ANY, None, applied, manager, state.clock.stamp(), True)
        obj = copy_json(obj)
        write_managers(obj, managers)
        return await store_new(state, request, kind, obj, manager)
    if (version and version != current.object["metadata"]["resourceVersion"]) or (
        uid and uid != current.object["metadata"]["uid"]
    ):
        raise conflict(kind, request.name)
    return await _apply_to(state, request, kind, applied, manager)


async def _apply_to(state: State, request: Request, kind: ResourceKind, applied: Object, manager: Manager) -> Written:
    for _ in range(RETRIES):
        current = state.store.collection(kind.storage).get(request.namespace, request.name)
        if current is None:
            raise not_found(kind, request.name)
        old = current.object
        merged, managers = apply_configuration(
            kind.node or ANY, old, applied, manager, state.clock.stamp(), request.flag("force")
        )
        obj = copy_json(merged)
        _isolate_applied(kind, obj, old, request.subresource)
        _shape_changed(state, kind, obj, old, request.subresource)
        await admission.admit(state, request, kind, obj, old)
        _validate(state, kind, obj, old)
        write_managers(obj, managers)
        if state.store.collection(kind.storage).get(request.namespace, request.name) is current:
            return _commit_change(state, request, kind, obj, current)
    raise conflict(kind, request.name)


def _isolate_applied(kind: ResourceKind, obj: Object, old: Object, subresource: str) -> None:
    if subresource == "status":
        obj["metadata"] = {**copy_json(old["metadata"]), "managedFields": obj["metadata"].get("managedFields")}
    elif "status" in kind.subresources and "status" in old:
        obj["status"] = old["status"]


def _drop_foreign_part(kind: ResourceKind, applied: Object, subresource: str) -> None:
    """Forget the part of a configuration that this address does not write, so that nobody owns it here."""
    if subresource == "status":
        for key in [key for key in applied if key not in ("status", "apiVersion", "kind", "metadata")]:
            del applied[key]
        kept = ("name", "namespace")
        applied["metadata"] = {key: value for key, value in applied["metadata"].items() if key in kept}
    elif "status" in kind.subresources:
        applied.pop("status", None)


def _refuse_required_manager() -> Exception:
    text = "is required for apply patch"
    message = f'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: {text}'
    cause = {"reason": "FieldValueRequired", "message": f"Required value: {text}", "field": "fieldManager"}
    details = {"group": "meta.k8s.io", "kind": "PatchOptions", "causes": [cause]}
    return StatusError(422, "Invalid", message, details)


def drop_nulls(value: object) -> object:
    """Return applied values without nulls, which claim nothing."""
    if isinstance(value, dict):
        return {key: drop_nulls(item) for key, item in value.items() if item is not None}
    return [drop_nulls(item) for item in value] if isinstance(value, list) else value


def _manager(request: Request, kind: ResourceKind, operation: str) -> Manager:
    return Manager(request.manager, operation, request.subresource, kind.api_version)


def _decode(request: Request, kind: ResourceKind, body: object) -> Object:
    """Decode a body and deal with unknown fields as fieldValidation says."""
    decoded = decode_object(kind, body)
    obj = decoded.object
    if kind.group == "events.k8s.io":
        obj = from_events_v1(obj)
    unknown = decoded.unknown
    if kind.custom is not None:
        unknown = unknown + kind.custom.find_unknown(obj)
    if unknown and request.validation == "Strict":
        shown = ", ".join(f'unknown field "{field}"' for field in unknown)
        what = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
        raise bad_request(f"{what}strict decoding error: {shown}")
    if unknown and request.validation == "Warn":
        request.warnings += [f'unknown field "{field}"' for field in unknown]
    return obj


def check_method(kind: ResourceKind, request: Request) -> None:
    """Refuse a verb that the resource or subresource does not have."""
    if request.subresource:
        sub = kind.subresources.get(request.subresource)
        verbs = sub.verbs if sub is not None else ()
    else:
        verbs = kind.verbs
    nameless = not request.name and request.verb in ("update", "patch")
    if (
        request.verb not in verbs
        or nameless
        or (request.name and request.verb == "create" and not request.subresource)
    ):
        raise method_not_allowed()
