"""Copies of all objects of a kind, kept by list and watch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from konverge.errors import Conflict, KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.resources import Object, Resource

FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0
"""Seconds between attempts while the API server does not answer."""
Key = tuple[str, str]
Listener = Callable[[Object | None, Object | None], None]
"""Called with (before, after); None means that the object did not or does not exist."""
log = logging.getLogger(__name__)


def key_of(item: Object) -> Key:
    """Return (namespace, name)."""
    return str(item["metadata"].get("namespace", "")), str(item["metadata"]["name"])


class Mirror:
    """A copy of one kind; listeners hear of every change in order, also of those found by a new list."""

    def __init__(self, client: KubeClient, resource: Resource) -> None:
        self.objects: dict[Key, Object] = {}
        self.synced = asyncio.Event()
        self._client = client
        self._resource = resource
        self._listeners: list[Listener] = []
        self._version = ""

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` on every change from now on."""
        self._listeners.append(listener)

    def forget(self, listener: Listener) -> None:
        """Stop calling ``listener``."""
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    def get(self, namespace: str, name: str) -> Object | None:
        """Return the copy of one object."""
        return self.objects.get((namespace, name))

    async def run(self) -> None:
        """List and watch until cancelled, whatever the API server does meanwhile."""
        pause = FIRST_PAUSE
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                pause = FIRST_PAUSE
            except Conflict:
                self._version = ""  # 410: what was missed can only be found by a list
            except KonvergeError as error:
                log.debug("%s: %s", self._resource.plural, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)

    async def _list(self) -> None:
        items, version = await self._client.list_at(self._resource)
        found = {key_of(item): item for item in items}
        for key in self.objects.keys() - found.keys():
            self._set(key, None)
        for key, item in found.items():
            self._set(key, item)
        self._version = version
        self.synced.set()

    async def _watch(self) -> None:
        async for kind, item in self._client.watch(self._resource, version=self._version):
            self._version = str(item["metadata"].get("resourceVersion", self._version))
            if kind == "DELETED":
                # The last state is kept for listeners: it tells how the object was deleted.
                self.objects[key_of(item)] = item
                self._set(key_of(item), None)
            elif kind != "BOOKMARK":
                self._set(key_of(item), item)

    def _set(self, key: Key, item: Object | None) -> None:
        before = self.objects.get(key)
        if item is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = item
        if before is None and item is None:
            return
        for listener in list(self._listeners):
            try:
                listener(before, item)
            except Exception:
                # One object that a listener cannot take must not end the copy for everybody.
                log.exception("A listener fails on %s %s.", self._resource.plural, key)
