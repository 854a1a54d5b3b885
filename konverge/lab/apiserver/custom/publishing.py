"""Custom resource definitions come to life: their kinds are served, Established is set, objects go with them."""

from __future__ import annotations

from typing import Any

from konverge.lab.apiserver.custom.schemas import convert_root
from konverge.lab.apiserver.custom.validating import compile_validator
from konverge.lab.apiserver.kinds import CustomVersion, ResourceKind, Subresource
from konverge.lab.apiserver.removing import CLEANUP, Options, remove_entry
from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.store import Event, Object, copy_json

DEFINITIONS = "apiextensions.k8s.io/customresourcedefinitions"
ANYTHING: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


class Publisher:
    """Follows the definitions in the store."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._going: dict[str, Object] = {}
        for entry in state.store.collection(DEFINITIONS).entries():
            self._serve(entry.object)
            self._resume(entry.object)
        state.store.listeners.append(self._follow)

    def _follow(self, storage: str, event: Event) -> None:
        if storage != DEFINITIONS:
            if event.type == "DELETED" and storage in self._going:
                self._state.tasks.spawn(self._clean_up(self._going[storage]))
            return
        obj = event.entry.object
        if event.type == "DELETED":
            self._withdraw(obj)
            return
        if obj["metadata"].get("deletionTimestamp"):
            self._resume(obj)
            return
        previous = event.previous.object if event.previous is not None else None
        if previous is None or previous["spec"] != obj["spec"]:
            self._serve(obj)
        self._resume(obj)

    def _resume(self, obj: Object) -> None:
        """Carry on with what a definition waits for."""
        if obj["metadata"].get("deletionTimestamp"):
            self._going[_storage(obj)] = obj
            self._state.tasks.spawn(self._clean_up(obj))
        elif not (obj.get("status") or {}).get("conditions"):
            self._state.tasks.spawn(self._establish(obj["metadata"]["name"]))

    def _serve(self, definition: Object) -> None:
        spec = definition["spec"]
        if self._is_served(spec):
            self._state.registry.remove(spec["group"], spec["names"]["plural"])
        for version in spec["versions"]:
            if version.get("served"):
                self._state.registry.add(build_kind(spec, version))

    def _is_served(self, spec: Object) -> bool:
        versions = dict(self._state.registry.groups()).get(spec["group"], [])
        return any(self._state.registry.find(spec["group"], v, spec["names"]["plural"]) for v in versions)

    def _withdraw(self, definition: Object) -> None:
        spec = definition["spec"]
        if self._is_served(spec):
            self._state.registry.remove(spec["group"], spec["names"]["plural"])
        storage = _storage(definition)
        self._going.pop(storage, None)
        for watch in list(self._state.faults.watches):
            if watch.request.need_kind().storage == storage:
                watch.cut()
        self._state.store.drop(storage)

    async def _establish(self, name: str) -> None:
        """Set the status that tells clients that the kind is served."""
        entry = self._state.store.collection(DEFINITIONS).get("", name)
        if entry is None or (entry.object.get("status") or {}).get("conditions"):
            return
        obj = copy_json(entry.object)
        status = obj.setdefault("status", {})
        status["acceptedNames"] = copy_json(obj["spec"]["names"])
        stamp = self._state.clock.stamp()
        status["conditions"] = [
            _condition("NamesAccepted", "NoConflicts", "no conflicts found", stamp),
            _condition("Established", "InitialNamesAccepted", "the initial names have been accepted", stamp),
        ]
        self._state.store.put(DEFINITIONS, obj)

    async def _clean_up(self, definition: Object) -> None:
        """Delete the objects of a definition that is going, then let it go."""
        name, storage = definition["metadata"]["name"], _storage(definition)
        collection = self._state.store.collection(storage)
        try:
            kind = self._state.registry.find_stored(storage)
        except KeyError:
            kind = None
        for entry in collection.entries():
            if kind is not None:
                remove_entry(self._state, kind, entry, Options())
        current = self._state.store.collection(DEFINITIONS).get("", name)
        if current is None or collection.count():
            return
        obj = copy_json(current.object)
        left = [finalizer for finalizer in obj["metadata"].get("finalizers") or () if finalizer != CLEANUP]
        obj["metadata"]["finalizers"] = left
        if not left:
            self._state.store.remove(DEFINITIONS, "", name)
        elif left != current.object["metadata"].get("finalizers"):
            self._state.store.put(DEFINITIONS, obj)


def _storage(definition: Object) -> str:
    return f"{definition['spec']['group']}/{definition['spec']['names']['plural']}"


def _condition(kind: str, reason: str, message: str, stamp: str) -> Object:
    return {"type": kind, "status": "True", "lastTransitionTime": stamp, "reason": reason, "message": message}


def build_kind(spec: Object, version: Object) -> ResourceKind:
    """Return the served resource of one version of a definition."""
    names = spec["names"]
    schema = (version.get("schema") or {}).get("openAPIV3Schema") or ANYTHING
    parts = version.get("subresources") or {}
    subresources: dict[str, Subresource] = {}
    verbs = ("get", "patch", "update")
    if parts.get("status") is not None:
        subresources["status"] = Subresource(names["kind"], verbs)
    if parts.get("scale") is not None:
        subresources["scale"] = Subresource("Scale", verbs, "autoscaling", "v1")
    selectable = tuple(f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or ())
    return ResourceKind(
        spec["group"],
        version["name"],
        names["plural"],
        names.get("singular") or names["kind"].lower(),
        names["kind"],
        spec["scope"] == "Namespaced",
        short=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=subresources,
        node=convert_root(schema),
        custom=CustomVersion(schema, _columns(version), parts.get("scale"), selectable, compile_validator(schema)),
        list_kind=names.get("listKind") or names["kind"] + "List",
    )


def _columns(version: Object) -> list[dict[str, Any]]:
    given: list[dict[str, Any]] = version.get("additionalPrinterColumns") or []
    return given or [{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]
