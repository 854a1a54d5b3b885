"""What follows a deletion: dependents of owners that are gone, namespaces that empty themselves.

Works like the controllers of a real cluster: after the fact, from events, and again where something changed
in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from konverge.lab.apiserver.kinds import ResourceKind
from konverge.lab.apiserver.removing import FOREGROUND, ORPHAN, Options, finish_if_released, remove_entry
from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.statuses import StatusError
from konverge.lab.apiserver.store import Entry, Event, Object, copy_json

Key = tuple[str, str, str]
"""Storage, namespace and name."""


class Collector:
    """Follows owners and dependents."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._dependents: dict[str, set[Key]] = {}
        self._present: dict[str, Key] = {}
        self._queue: asyncio.Queue[tuple[Callable[[Any], None], Any]] = asyncio.Queue()
        for collection in state.store:
            for entry in collection.entries():
                self._index(collection.storage, entry.object)
        state.store.listeners.append(self._follow)
        for collection in state.store:
            for entry in collection.entries():
                self._consider(collection.storage, entry.object)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            work, argument = await self._queue.get()
            try:
                work(argument)
            except StatusError:
                continue  # the object changed or is gone; its own event brings it back here

    def _index(self, storage: str, obj: Object) -> None:
        metadata = obj["metadata"]
        key = (storage, metadata.get("namespace", ""), metadata["name"])
        self._present[metadata["uid"]] = key
        for owner in metadata.get("ownerReferences") or ():
            self._dependents.setdefault(owner["uid"], set()).add(key)

    def _forget(self, storage: str, obj: Object) -> None:
        metadata = obj["metadata"]
        key = (storage, metadata.get("namespace", ""), metadata["name"])
        for owner in metadata.get("ownerReferences") or ():
            self._dependents.get(owner["uid"], set()).discard(key)

    def _follow(self, storage: str, event: Event) -> None:
        if event.previous is not None:
            self._forget(storage, event.previous.object)
        obj = event.entry.object
        if event.type != "DELETED":
            self._index(storage, obj)
            self._consider(storage, obj)
            return
        uid = obj["metadata"]["uid"]
        self._present.pop(uid, None)
        for key in self._dependents.get(uid, ()):
            self._queue.put_nowait((self._do_dependent, key))
        for owner in obj["metadata"].get("ownerReferences") or ():
            self._queue.put_nowait((self._do_owner, owner["uid"]))
        namespace = obj["metadata"].get("namespace")
        if namespace:
            self._queue.put_nowait((self._do_namespace, namespace))

    def _consider(self, storage: str, obj: Object) -> None:
        metadata = obj["metadata"]
        key = (storage, metadata.get("namespace", ""), metadata["name"])
        owners = metadata.get("ownerReferences") or ()
        if any(owner["uid"] not in self._present for owner in owners):
            self._queue.put_nowait((self._do_dependent, key))
        if metadata.get("deletionTimestamp"):
            finalizers = metadata.get("finalizers") or ()
            if ORPHAN in finalizers or FOREGROUND in finalizers:
                self._queue.put_nowait((self._do_marked, key))
            if storage == "namespaces":
                self._queue.put_nowait((self._do_namespace, metadata["name"]))

    def _find(self, key: Key) -> tuple[ResourceKind, Entry] | None:
        storage, namespace, name = key
        entry = self._state.store.collection(storage).get(namespace, name)
        if entry is None:
            return None
        try:
            return self._state.registry.find_stored(storage), entry
        except KeyError:
            return None

    def _do_dependent(self, key: Key) -> None:
        """Delete an object whose owners are all gone; else drop the references to those that are."""
        found = self._find(key)
        if found is None:
            return
        kind, entry = found
        owners = entry.object["metadata"].get("ownerReferences") or []
        left = [owner for owner in owners if owner["uid"] in self._present]
        if not owners or len(left) == len(owners):
            return
        if not left:
            remove_entry(self._state, kind, entry, Options(propagation=self._inherit(entry)))
            return
        obj = copy_json(entry.object)
        obj["metadata"]["ownerReferences"] = left
        self._state.store.put(kind.storage, obj)

    def _inherit(self, entry: Entry) -> str:
        """Return the policy for a dependent: it keeps the one that it is being deleted by."""
        finalizers = entry.object["metadata"].get("finalizers") or ()
        return "Orphan" if ORPHAN in finalizers else "Foreground" if FOREGROUND in finalizers else "Background"

    def _do_owner(self, uid: str) -> None:
        """Look again at an owner that waits for its dependents."""
        key = self._present.get(uid)
        found = self._find(key) if key is not None else None
        finalizers = (found[1].object["metadata"].get("finalizers") or ()) if found is not None else ()
        if key is not None and FOREGROUND in finalizers:
            self._do_marked(key)

    def _do_marked(self, key: Key) -> None:
        """Carry out what a deletion with propagation Orphan or Foreground asks for."""
        found = self._find(key)
        if found is None:
            return
        kind, entry = found
        metadata = entry.object["metadata"]
        finalizers = metadata.get("finalizers") or ()
        dependents = [pair for pair in map(self._find, list(self._dependents.get(metadata["uid"], ()))) if pair]
        if ORPHAN in finalizers:
            for child_kind, child in dependents:
                self._release(child_kind, child, metadata["uid"])
            self._drop_finalizer(kind, entry, ORPHAN)
        elif FOREGROUND in finalizers:
            for child_kind, child in dependents:
                if not child.object["metadata"].get("deletionTimestamp"):
                    remove_entry(self._state, child_kind, child, Options(propagation="Foreground"))
            if not self._blocking(metadata["uid"]):
                self._drop_finalizer(kind, entry, FOREGROUND)

    def _release(self, kind: ResourceKind, entry: Entry, uid: str) -> None:
        obj = copy_json(entry.object)
        left = [owner for owner in obj["metadata"]["ownerReferences"] if owner["uid"] != uid]
        if left:
            obj["metadata"]["ownerReferences"] = left
        else:
            del obj["metadata"]["ownerReferences"]
        self._state.store.put(kind.storage, obj)

    def _blocking(self, uid: str) -> bool:
        for key in self._dependents.get(uid, ()):
            found = self._find(key)
            owners = found[1].object["metadata"].get("ownerReferences") or () if found else ()
            if any(owner["uid"] == uid and owner.get("blockOwnerDeletion") for owner in owners):
                return True
        return False

    def _drop_finalizer(self, kind: ResourceKind, entry: Entry, name: str) -> None:
        current = self._state.store.collection(kind.storage).get(*entry.key)
        if current is None:
            return
        obj = copy_json(current.object)
        obj["metadata"]["finalizers"] = [f for f in obj["metadata"].get("finalizers") or () if f != name]
        if not obj["metadata"]["finalizers"]:
            del obj["metadata"]["finalizers"]
        if finish_if_released(self._state, kind, obj) is None:
            self._state.store.put(kind.storage, obj)

    def _do_namespace(self, name: str) -> None:
        """Empty a namespace that is being deleted, and let it go when nothing is left."""
        entry = self._state.store.collection("namespaces").get("", name)
        if entry is None or not entry.object["metadata"].get("deletionTimestamp"):
            return
        left = 0
        for collection in self._state.store:
            for child in collection.entries(name):
                found = self._find((collection.storage, *child.key))
                if found is not None:
                    _, gone = remove_entry(self._state, found[0], child, Options(propagation="Background"))
                    left += not gone
        if left or any(collection.spaces.get(name) for collection in self._state.store):
            return
        current = self._state.store.collection("namespaces").get("", name)
        if current is None:
            return
        obj = copy_json(current.object)
        obj["spec"] = {}
        kind = self._state.registry.find_stored("namespaces")
        if finish_if_released(self._state, kind, obj) is None:
            self._state.store.put("namespaces", obj)
