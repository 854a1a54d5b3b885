"""Deletion: preconditions, grace, finalizers, propagation and the removal itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from konverge.lab.apiserver.decoding import parse_body
from konverge.lab.apiserver.kinds import ResourceKind
from konverge.lab.apiserver.reading import select_entries
from konverge.lab.apiserver.requests import Request
from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.statuses import (
    StatusError,
    bad_request,
    conflict,
    describe_success,
    forbidden,
    not_found,
    uid_mismatch,
)
from konverge.lab.apiserver.store import Entry, Object

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
"""Holds a definition until its objects are gone."""
PROTECTED = frozenset({"default", "kube-system", "kube-public"})
"""Namespaces that the API refuses to delete."""
RETURN_OBJECT = frozenset({"Pod", "Service", "ServiceAccount", "PersistentVolume", "PersistentVolumeClaim"})
"""Kinds whose deletion answers with the object instead of a Status."""


@dataclass(slots=True)
class Options:
    """What a deletion asks for."""

    grace: int | None = None
    propagation: str = ""
    uid: str = ""
    version: str = ""
    accepted: bool = False


def read_options(request: Request) -> Options:
    """Read DeleteOptions from the body and the query; the body wins where both speak."""
    raw = request.body
    content_type = request.headers.get("Content-Type", "")
    body: Any = parse_body(raw, content_type) if raw.strip() else {}
    if not isinstance(body, dict):
        raise bad_request("DeleteOptions: expected an object")
    preconditions = body.get("preconditions") or {}
    grace = body.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))
    propagation = body.get("propagationPolicy") or request.query.get("propagationPolicy", "")
    orphan = body.get("orphanDependents", request.query.get("orphanDependents"))
    if orphan is not None and not propagation:
        propagation = "Orphan" if str(orphan).lower() == "true" else "Background"
    if propagation not in ("", "Orphan", "Background", "Foreground"):
        raise _refuse_propagation(propagation)
    if body.get("dryRun"):
        request.query = {**request.query, "dryRun": body["dryRun"][0]}
    return Options(
        int(grace) if grace is not None else None,
        propagation,
        preconditions.get("uid") or "",
        preconditions.get("resourceVersion") or "",
        orphan is not None and str(orphan).lower() == "false",
    )


def _refuse_propagation(value: str) -> StatusError:
    text = f'Unsupported value: "{value}": supported values: "Background", "Foreground", "Orphan"'
    cause = {"reason": "FieldValueNotSupported", "message": text, "field": "propagationPolicy"}
    details = {"group": "meta.k8s.io", "kind": "DeleteOptions", "causes": [cause]}
    message = f'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: {text}'
    return StatusError(422, "Invalid", message, details)


def delete_object(state: State, request: Request) -> tuple[int, Entry | Object]:
    """Serve DELETE on an object: (code, the object as it is left, or a Status)."""
    kind = request.need_kind()
    options = read_options(request)
    entry = state.store.collection(kind.storage).get(request.namespace, request.name)
    if entry is None:
        raise not_found(kind, request.name)
    _check_deletable(kind, entry, options)
    left, gone = remove_entry(state, kind, entry, options, dry_run=request.dry_run)
    if not gone:
        return (202 if options.accepted else 200), left
    if kind.kind in RETURN_OBJECT:
        return 200, left
    metadata = entry.object["metadata"]
    return 200, describe_success(kind, metadata["name"], metadata["uid"])


def _check_deletable(kind: ResourceKind, entry: Entry, options: Options) -> None:
    metadata = entry.object["metadata"]
    if kind.kind == "Namespace" and metadata["name"] in PROTECTED:
        raise forbidden(kind, metadata["name"], "this namespace may not be deleted")
    if options.uid not in ("", metadata["uid"]):
        raise uid_mismatch(kind, metadata["name"], options.uid, metadata["uid"])
    if options.version not in ("", metadata["resourceVersion"]):
        raise conflict(
            kind,
            metadata["name"],
            f"the ResourceVersion in the precondition ({options.version}) does not match the ResourceVersion in "
            f"record ({metadata['resourceVersion']}). The object might have been modified",
        )


def delete_collection(state: State, request: Request) -> list[Entry]:
    """Serve DELETE on a collection; returns what was selected."""
    kind = request.need_kind()
    options = read_options(request)
    entries = select_entries(state, request)
    for entry in entries:
        if state.store.collection(kind.storage).get(*entry.key) is entry:
            remove_entry(state, kind, entry, options, dry_run=request.dry_run)
    return entries


def remove_entry(
    state: State, kind: ResourceKind, entry: Entry, options: Options, *, dry_run: bool = False
) -> tuple[Entry, bool]:
    """Delete an object or mark it; returns what is left of it and whether it is gone."""
    obj = {**entry.object, "metadata": {**entry.object["metadata"]}}
    metadata = obj["metadata"]
    finalizers = _choose_finalizers(kind, metadata, options)
    grace = _choose_grace(kind, obj, options)
    holds = finalizers or grace > 0 or (kind.kind == "Namespace" and obj.get("spec", {}).get("finalizers"))
    if not holds:
        return (entry, True) if dry_run else (_take_out(state, kind, entry), True)
    if metadata.get("deletionTimestamp") and not _changes(metadata, finalizers, grace, kind):
        return entry, False
    _mark(state, kind, obj, finalizers, grace)
    return (Entry(obj, entry.version) if dry_run else state.store.put(kind.storage, obj)), False


def _changes(metadata: Object, finalizers: list[str], grace: int, kind: ResourceKind) -> bool:
    shorter = kind.kind == "Pod" and grace < metadata.get("deletionGracePeriodSeconds", 0)
    return shorter or finalizers != (metadata.get("finalizers") or [])


def _choose_finalizers(kind: ResourceKind, metadata: Object, options: Options) -> list[str]:
    finalizers = list(metadata.get("finalizers") or ())
    wanted = options.propagation or ("Orphan" if kind.kind == "Job" else "")
    if kind.kind == "CustomResourceDefinition" and not metadata.get("deletionTimestamp"):
        finalizers.append(CLEANUP)
    if not wanted:
        return finalizers
    finalizers = [name for name in finalizers if name not in (ORPHAN, FOREGROUND)]
    if wanted == "Orphan":
        finalizers.append(ORPHAN)
    elif wanted == "Foreground":
        finalizers.append(FOREGROUND)
    return finalizers


def _choose_grace(kind: ResourceKind, obj: Object, options: Options) -> int:
    """Return the seconds a pod may take; 0 means that it goes at once."""
    if kind.kind != "Pod":
        return 0
    spec, metadata = obj.get("spec") or {}, obj["metadata"]
    grace = options.grace
    if grace is None:
        grace = spec.get("terminationGracePeriodSeconds", 30)
    if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if metadata.get("deletionTimestamp"):
        left = metadata.get("deletionGracePeriodSeconds", grace)
        return min(left, grace) if options.grace is not None else int(left)
    return max(0, grace)


def _mark(state: State, kind: ResourceKind, obj: Object, finalizers: list[str], grace: int) -> None:
    metadata = obj["metadata"]
    due = state.clock.now() + timedelta(seconds=grace)
    metadata["deletionTimestamp"] = due.strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata["deletionGracePeriodSeconds"] = grace
    if finalizers:
        metadata["finalizers"] = finalizers
    if kind.generated and "generation" in metadata:
        metadata["generation"] += 1
    if kind.kind == "Namespace":
        obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
        metadata.pop("deletionGracePeriodSeconds", None)


def _take_out(state: State, kind: ResourceKind, entry: Entry) -> Entry:
    namespace, name = entry.key
    changes: Object = {}
    if kind.kind == "Pod":
        changes = {"deletionTimestamp": state.clock.stamp(), "deletionGracePeriodSeconds": 0}
        if not entry.object["metadata"].get("deletionTimestamp"):
            changes["generation"] = entry.object["metadata"].get("generation", 1) + 1
    return state.store.remove(kind.storage, namespace, name, changes)


def finish_if_released(state: State, kind: ResourceKind, obj: Object) -> Entry | None:
    """Remove an object that was marked and whose last finalizer a write took away."""
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return None
    if metadata.get("deletionGracePeriodSeconds", 0) > 0:
        return None
    if kind.kind == "Namespace" and (obj.get("spec") or {}).get("finalizers"):
        return None
    state.store.put(kind.storage, obj)
    return state.store.remove(kind.storage, metadata.get("namespace", ""), metadata["name"])
