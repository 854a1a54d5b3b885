"""Objects in memory, with one version counter for all and a bounded history per resource.

Objects are immutable once committed: writers copy, so that readers, watchers and snapshots share them.
The history gives honest watches: replay from any version that is kept, 410 for anything older.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

Object = dict[str, Any]


class Entry:
    """A committed object with its encoding, which is made once and shared by lists and watchers."""

    __slots__ = ("_body", "_key", "object", "version")

    def __init__(self, obj: Object, version: int) -> None:
        self.object = obj
        self.version = version
        self._body: bytes | None = None
        self._key: tuple[str, str] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        if self._key is None:
            metadata = self.object["metadata"]
            self._key = (metadata.get("namespace", ""), metadata["name"])
        return self._key

    def body(self) -> bytes:
        """Return the JSON without kind and apiVersion: ``{"metadata":...}``."""
        if self._body is None:
            rest = {k: v for k, v in self.object.items() if k not in ("kind", "apiVersion")}
            self._body = orjson.dumps(rest)
        return self._body

    def encode(self, head: bytes) -> bytes:
        """Return the JSON with a head such as ``{"kind":"Pod","apiVersion":"v1"``."""
        return head + b"," + self.body()[1:]


@dataclass(frozen=True, slots=True)
class Event:
    """One change: ``type`` is ADDED, MODIFIED or DELETED; ``previous`` is what was there before."""

    type: str
    version: int
    entry: Entry
    previous: Entry | None


@dataclass(slots=True)
class Collection:
    """All objects of one resource, its recent events and its watchers."""

    storage: str
    history: deque[Event]
    floor: int = 0
    """Events up to this version are forgotten."""
    spaces: dict[str, dict[str, Entry]] = field(default_factory=dict)
    watchers: set[Callable[[Event], None]] = field(default_factory=set)

    def get(self, namespace: str, name: str) -> Entry | None:
        """Return one object."""
        space = self.spaces.get(namespace)
        return space.get(name) if space else None

    def entries(self, namespace: str = "") -> list[Entry]:
        """Return the objects of a namespace, or all of them, in the order of their keys."""
        if namespace:
            space = self.spaces.get(namespace, {})
            return [space[name] for name in sorted(space)]
        return [self.spaces[space][name] for space in sorted(self.spaces) for name in sorted(self.spaces[space])]

    def count(self) -> int:
        """Return how many objects there are."""
        return sum(len(space) for space in self.spaces.values())

    def since(self, version: int) -> list[Event]:
        """Return the kept events after a version."""
        return [event for event in self.history if event.version > version]


class Store:
    """Commits changes and tells everyone who listens."""

    def __init__(self, history: int = 4096, version: int = 1) -> None:
        self.version = version
        self._history = history
        self.floor = 0
        """What collections that are still empty have forgotten: nothing in a new store."""
        self._collections: dict[str, Collection] = {}
        self.listeners: list[Callable[[str, Event], None]] = []
        """Called with (storage, event) for every change, before watchers."""

    def collection(self, storage: str) -> Collection:
        """Return the collection of a resource, empty where nothing was stored yet."""
        found = self._collections.get(storage)
        if found is None:
            found = Collection(storage, deque(maxlen=self._history), floor=self.floor)
            self._collections[storage] = found
        return found

    def __iter__(self) -> Iterator[Collection]:
        return iter(list(self._collections.values()))

    def put(self, storage: str, obj: Object) -> Entry:
        """Commit a new or changed object under the next version."""
        collection = self.collection(storage)
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        entry = Entry(obj, self.version)
        namespace, name = entry.key
        space = collection.spaces.setdefault(namespace, {})
        previous = space.get(name)
        space[name] = entry
        kind = "ADDED" if previous is None else "MODIFIED"
        self._publish(collection, Event(kind, self.version, entry, previous))
        return entry

    def remove(self, storage: str, namespace: str, name: str, changes: Object | None = None) -> Entry:
        """Commit the removal of an object; the last state carries its version and ``changes`` to metadata."""
        collection = self.collection(storage)
        space = collection.spaces[namespace]
        previous = space.pop(name)
        if not space:
            del collection.spaces[namespace]
        self.version += 1
        last = {**previous.object}
        last["metadata"] = {**last["metadata"], **(changes or {}), "resourceVersion": str(self.version)}
        entry = Entry(last, self.version)
        self._publish(collection, Event("DELETED", self.version, entry, previous))
        return entry

    def restore(self, storage: str, obj: Object) -> None:
        """Put back an object read from disk, under the version it carries; tells nobody."""
        entry = Entry(obj, int(obj["metadata"]["resourceVersion"]))
        namespace, name = entry.key
        self.collection(storage).spaces.setdefault(namespace, {})[name] = entry

    def compact(self) -> None:
        """Forget all history: every older version answers 410 from now on."""
        self.floor = self.version
        for collection in self._collections.values():
            collection.history.clear()
            collection.floor = self.version

    def drop(self, storage: str) -> None:
        """Forget an empty collection."""
        self._collections.pop(storage, None)

    def _publish(self, collection: Collection, event: Event) -> None:
        history = collection.history
        if history.maxlen is not None and len(history) == history.maxlen:
            collection.floor = history[0].version
        history.append(event)
        for listener in self.listeners:
            listener(collection.storage, event)
        for watcher in list(collection.watchers):
            watcher(event)


def copy_json(value: Any) -> Any:
    """Return a deep copy of JSON data; several times quicker than ``copy.deepcopy``."""
    if isinstance(value, dict):
        return {key: copy_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copy_json(item) for item in value]
    return value
