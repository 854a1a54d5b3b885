"""The snapshot: objects by identity, the few indexes that rules need, and what a rule has read.

Every reading of a rule is recorded under a *key*: ``(kind, namespace, name)`` for one object, or an index key such
as ``("slices", namespace, service)``. A change of an object touches its own key and its index keys; what has read
one of them is translated again. So a rule can only see the cluster through a :class:`Scope`.
"""

from __future__ import annotations

from collections.abc import Iterable

from konverge.translate.ids import Identifiers
from konverge.translate.problems import Object, ObjectRef, Problem, describe, refer
from konverge.translate.settings import Settings

Key = tuple[str, str, str]

SERVICE_LABEL = "kubernetes.io/service-name"
LISTED = frozenset(
    {
        "ReferenceGrant",
        "KongVault",
        "KongLicense",
        "KongCustomEntity",
        "KongClusterPlugin",
        "Gateway",
        "GatewayClass",
    }
)
"""Kinds of which some rule reads all objects."""
CA_LABEL = "konghq.com/ca-cert"


def index_keys(key: Key, value: Object) -> list[Key]:
    """Return the index keys under which an object is found."""
    kind, namespace, _ = key
    if kind == "EndpointSlice":
        labels = value["metadata"].get("labels") or {}
        service = labels.get(SERVICE_LABEL)
        return [("slices", namespace, service)] if service else []
    if kind == "BackendTLSPolicy":
        targets = (value.get("spec") or {}).get("targetRefs") or ()
        names = {
            target.get("name") or ""
            for target in targets
            if target.get("kind") == "Service" and (target.get("group") or "") in ("", "core")
        }
        return [("policies", namespace, name) for name in sorted(names)]
    if kind in ("Secret", "ConfigMap"):
        labels = value["metadata"].get("labels") or {}
        return [("authorities", "", "")] if labels.get(CA_LABEL) == "true" else []
    return [("all", kind, "")] if kind in LISTED else []


class Store:
    """The current objects. ``touched`` collects the keys whose meaning changed since it was last emptied."""

    def __init__(self) -> None:
        self.objects: dict[Key, Object] = {}
        self.index: dict[Key, dict[Key, Object]] = {}
        self.touched: set[Key] = set()

    def put(self, key: Key, value: Object) -> None:
        """Add or replace an object that has been checked."""
        before = self.objects.get(key)
        if before is value:
            return
        if before is not None:
            self._forget(key, before)
        self.objects[key] = value
        self.touched.add(key)
        for entry in index_keys(key, value):
            self.index.setdefault(entry, {})[key] = value
            self.touched.add(entry)

    def drop(self, key: Key) -> None:
        """Remove an object; nothing happens where it is not there."""
        before = self.objects.pop(key, None)
        if before is not None:
            self._forget(key, before)
            self.touched.add(key)

    def _forget(self, key: Key, value: Object) -> None:
        for entry in index_keys(key, value):
            found = self.index[entry]
            del found[key]
            if not found:
                del self.index[entry]
            self.touched.add(entry)


class Scope:
    """What one rule sees while it works: the snapshot, the settings, and a place for its problems."""

    __slots__ = ("_index", "_objects", "ids", "problems", "reads", "settings")

    def __init__(self, store: Store, settings: Settings, ids: Identifiers) -> None:
        self._objects = store.objects
        self._index = store.index
        self.settings = settings
        self.ids = ids
        self.reads: set[Key] = set()
        self.problems: list[Problem] = []

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return one object, or None."""
        key = (kind, namespace, name)
        self.reads.add(key)
        return self._objects.get(key)

    def find(self, index: str, first: str = "", second: str = "") -> list[tuple[Key, Object]]:
        """Return the objects of an index entry, sorted by identity."""
        key = (index, first, second)
        self.reads.add(key)
        found = self._index.get(key)
        if not found:
            return []
        return sorted(found.items()) if len(found) > 1 else list(found.items())

    def report(self, kind: str, value: Object, reason: str, message: str) -> None:
        """Note that an object is left out or degraded."""
        self.problems.append(describe(refer(kind, value), reason, message))

    def report_ref(self, ref: ObjectRef, reason: str, message: str) -> None:
        """Note the same for an object of which only the reference is at hand."""
        self.problems.append(describe(ref, reason, message))

    def report_all(self, kind: str, values: Iterable[Object], reason: str, message: str) -> None:
        """Note the same for several objects."""
        for value in values:
            self.report(kind, value, reason, message)
