"""Who owns which field: the entries of ``metadata.managedFields``, kept up to date by every write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from konverge.lab.apiserver.merging.fieldsets import (
    EMPTY,
    FieldSet,
    Path,
    decode_fields,
    encode_fields,
    show_path,
    with_ancestors,
)
from konverge.lab.apiserver.merging.structured import collect_fields, compare, merge, remove_paths
from konverge.lab.apiserver.schemas import Node
from konverge.lab.apiserver.statuses import Cause, StatusError, apply_conflict
from konverge.lab.apiserver.store import Object

STRIPPED = (
    "apiVersion",
    "kind",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.clusterName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
    "metadata.deletionTimestamp",
    "metadata.deletionGracePeriodSeconds",
    "metadata.generateName",
)
"""Fields that nobody owns."""
STRIPPED_PATHS = tuple(tuple("f:" + part for part in name.split(".")) for name in STRIPPED)
METADATA: Path = ("f:metadata",)


@dataclass(frozen=True, slots=True)
class Manager:
    """The identity of an entry: who, by which operation, through which subresource and version."""

    name: str
    operation: str
    subresource: str = ""
    version: str = ""


@dataclass(slots=True)
class Owned:
    """What a manager owns and since when."""

    fields: FieldSet
    time: str


Managers = dict[Manager, Owned]


def read_managers(obj: Object) -> Managers:
    """Decode ``metadata.managedFields``."""
    managers: Managers = {}
    for entry in obj["metadata"].get("managedFields") or ():
        if not entry.get("manager") and not entry.get("operation"):
            continue
        key = Manager(
            entry.get("manager", ""),
            entry.get("operation", "Update"),
            entry.get("subresource", ""),
            entry.get("apiVersion", ""),
        )
        managers[key] = Owned(frozenset(decode_fields(entry.get("fieldsV1") or {})), entry.get("time", ""))
    return managers


def write_managers(obj: Object, managers: Managers) -> None:
    """Encode the managers into the object: appliers first, then by time and name."""
    entries = [
        _encode_entry(manager, owned) for manager, owned in sorted(managers.items(), key=_rank) if owned.fields
    ]
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def _rank(item: tuple[Manager, Owned]) -> tuple[Any, ...]:
    manager, owned = item
    return (manager.operation != "Apply", owned.time, manager.name, manager.version, manager.subresource)


def _encode_entry(manager: Manager, owned: Owned) -> Object:
    entry = {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": manager.version,
        "time": owned.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": encode_fields(owned.fields),
    }
    if manager.subresource:
        entry["subresource"] = manager.subresource
    return entry


def strip_paths(paths: Iterable[Path]) -> FieldSet:
    """Return the paths without those that nobody owns."""
    return frozenset(
        path for path in paths if path != METADATA and not any(path[: len(cut)] == cut for cut in STRIPPED_PATHS)
    )


def track_update(node: Node, old: Object | None, new: Object, manager: Manager, now: str) -> None:
    """Give what a write changed to its writer, and take it from everyone else.

    The managers of the old object hold, unless the new one resets them by a list with an empty entry.
    """
    given = new["metadata"].get("managedFields")
    managers = read_managers(old) if old is not None and not _is_reset(given) else {}
    difference = compare(node, old or {}, new)
    written, removed = strip_paths(difference.written), strip_paths(difference.removed)
    if not written and not removed and old is not None and not _is_reset(given):
        new["metadata"].pop("managedFields", None)
        if "managedFields" in old["metadata"]:
            new["metadata"]["managedFields"] = old["metadata"]["managedFields"]
        return
    changed = written | removed
    for other, owned in list(managers.items()):
        if other != manager and not owned.fields.isdisjoint(changed):
            owned.fields -= changed
    before = managers.get(manager, Owned(EMPTY, now)).fields
    after = (before - removed) | written
    if after != before:
        managers[manager] = Owned(after, now)
    write_managers(new, managers)


def _is_reset(given: Any) -> bool:
    return isinstance(given, list) and given == [{}]


def apply_configuration(
    node: Node, live: Object | None, applied: Object, manager: Manager, now: str, force: bool
) -> tuple[Object, Managers]:
    """Return the live object with a configuration applied, and its managers; 409 where others own fields.

    What the manager applied before and does not apply now is removed, unless somebody else owns it too.
    """
    base: Object = live if live is not None else {"metadata": {}}
    managers = read_managers(base)
    last = managers.get(manager)
    fields = strip_paths(collect_fields(node, applied))
    merged = merge(node, base, applied)
    managers[manager] = Owned(fields, last.time if last is not None and last.fields == fields else now)
    if last is not None:
        kept = with_ancestors(path for owned in managers.values() for path in owned.fields)
        merged = remove_paths(node, merged, with_ancestors(last.fields) - kept)
    _settle(node, base, merged, manager, managers, force)
    merged["apiVersion"], merged["kind"] = applied["apiVersion"], applied["kind"]
    return merged, managers


def _settle(node: Node, base: Object, merged: Object, manager: Manager, managers: Managers, force: bool) -> None:
    difference = compare(node, base, merged)
    written, removed = difference.written, difference.removed
    conflicts = {
        other: owned.fields & written
        for other, owned in managers.items()
        if other != manager and not owned.fields.isdisjoint(written)
    }
    if conflicts and not force:
        raise _explain(conflicts)
    for other, owned in managers.items():
        if other != manager:
            owned.fields = owned.fields - conflicts.get(other, EMPTY) - removed


def _explain(conflicts: dict[Manager, FieldSet]) -> StatusError:
    causes = []
    for manager, paths in sorted(conflicts.items(), key=lambda item: item[0].name):
        shown = _show_manager(manager)
        causes += [Cause("FieldManagerConflict", f"conflict with {shown}", show_path(path)) for path in sorted(paths)]
    return apply_conflict(causes)


def _show_manager(manager: Manager) -> str:
    using = f" using {manager.version}" if manager.operation == "Update" else ""
    through = f' with subresource "{manager.subresource}"' if manager.subresource else ""
    return f'"{manager.name}"{through}{using}'
