"""One list and one watch per kind, held as a local cache with handlers.

The cache sees its own process' writes at once (``note``), so that a controller never acts twice because
its watch lags behind. An event older than what the cache holds is dropped by its resourceVersion.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Iterator

from konverge.errors import Conflict, KonvergeError, NotFound
from konverge.kube.client import KubeClient
from konverge.kube.resources import Object, Resource
from konverge.lab.controllers.conditions import format_time, now

log = logging.getLogger(__name__)

Handler = Callable[[Object | None, Object | None], None]
"""Called with (old, new); None means that it does not exist."""

WATCH_SECONDS = 300
BACKOFF = (0.05, 5.0)
"""Seconds: the first and the longest pause after a failed list or watch."""
TOMBSTONES = 2048
"""How many uids of deleted objects are remembered."""


def version_of(item: Object) -> int:
    """Return the resourceVersion as a number; Kubernetes calls them comparable since 1.35."""
    text = str(item["metadata"].get("resourceVersion") or "0")
    return int(text) if text.isdigit() else 0


class Cache:
    """Every object of one kind, kept current by a watch; ``run`` must run for it to be so."""

    def __init__(self, client: KubeClient, resource: Resource, namespace: str | None = None) -> None:
        self.client = client
        self.resource = resource
        self.synced = asyncio.Event()
        self._namespace = namespace
        self._items: dict[str, dict[str, Object]] = {}
        self._handlers: list[Handler] = []
        self._buried: deque[str] = deque(maxlen=TOMBSTONES)
        self._version = ""
        self._seen = 0
        """The highest version that the server has shown; a lower list means that it was set back."""

    def subscribe(self, handler: Handler) -> None:
        """Call ``handler`` on every change from now on."""
        self._handlers.append(handler)

    def get(self, namespace: str, name: str) -> Object | None:
        """Return the object, or None."""
        return self._items.get(namespace, {}).get(name)

    def items(self, namespace: str | None = None) -> Iterator[Object]:
        """Iterate over the objects of one namespace, or of all."""
        spaces = list(self._items.values()) if namespace is None else [self._items.get(namespace, {})]
        for space in spaces:
            yield from list(space.values())

    def note(self, item: Object) -> Object:
        """Take over the answer to a write of our own, and return it."""
        if item["metadata"]["uid"] not in self._buried:
            self._store(item)
        return item

    def forget(self, item: Object) -> None:
        """Drop an object that our own write has removed."""
        self._drop(item)

    def mark_deleting(self, item: Object) -> None:
        """Remember that our own write has started a graceful deletion, before the watch says so."""
        held = self.get(item["metadata"].get("namespace", ""), item["metadata"]["name"])
        if held is not None and held["metadata"]["uid"] == item["metadata"]["uid"]:
            # A new object, and told to everybody: the watch's own event would then look like no change at all.
            marked = {**held, "metadata": {**held["metadata"]}}
            marked["metadata"].setdefault("deletionTimestamp", format_time(now()))
            self._items[marked["metadata"].get("namespace", "")][marked["metadata"]["name"]] = marked
            self._tell(held, marked)

    async def run(self) -> None:
        """List, then watch, for ever; failures are retried with a growing pause."""
        pause = BACKOFF[0]
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                pause = BACKOFF[0]
            except Conflict as error:
                log.info("%s: %s: listing again", self.resource.plural, error.reason)
                self._version = ""
            except NotFound:
                self.synced.set()
                pause = BACKOFF[1]
            except KonvergeError as error:
                log.debug("%s: %s", self.resource.plural, error.message)
                if error.reason == "ApiServerError":
                    # So does a server answer that was restored from a backup: it waits for our version for ever.
                    self._version = ""
                pause = min(pause * 2, BACKOFF[1])
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))

    async def _list(self) -> None:
        items, version = await self.client.list_at(self.resource, self._namespace)
        listed = {item["metadata"]["uid"] for item in items}
        newest = int(version) if version.isdigit() else 0
        rewound = newest < self._seen
        for held in list(self.items()):
            if held["metadata"]["uid"] not in listed and (rewound or version_of(held) <= newest):
                self._drop(held)
        for item in items:
            self._store(item, whatever=rewound)
        self._version, self._seen = version, newest
        self.synced.set()

    async def _watch(self) -> None:
        seconds = int(WATCH_SECONDS * random.uniform(0.8, 1.2))
        async for kind, item in self.client.watch(
            self.resource, self._namespace, version=self._version, timeout=seconds
        ):
            self._version = str(item["metadata"]["resourceVersion"])
            self._seen = max(self._seen, version_of(item))
            if kind == "DELETED":
                self._drop(item)
            elif kind != "BOOKMARK":
                self._store(item)

    def _store(self, item: Object, *, whatever: bool = False) -> None:
        space = self._items.setdefault(item["metadata"].get("namespace", ""), {})
        old = space.get(item["metadata"]["name"])
        if old is not None and version_of(old) >= version_of(item) and not whatever:
            return
        space[item["metadata"]["name"]] = item
        self._tell(old, item)

    def _drop(self, item: Object) -> None:
        self._buried.append(item["metadata"]["uid"])
        space = self._items.get(item["metadata"].get("namespace", ""), {})
        old = space.get(item["metadata"]["name"])
        if old is not None and old["metadata"]["uid"] == item["metadata"]["uid"]:
            del space[item["metadata"]["name"]]
            self._tell(old, None)

    def _tell(self, old: Object | None, new: Object | None) -> None:
        for handler in self._handlers:
            handler(old, new)
