"""The caches of the controller and what a change in them means.

One watch per source kind serves the whole fleet: their number does not depend on the number of proxies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from konverge.kube.caching import Cache
from konverge.kube.client import KubeClient
from konverge.kube.resources import ENDPOINT_SLICES, PROXY_FLEETS, SOURCES, Object, Resource
from konverge.operate.rendering import source_filters

QUIET_SECONDS = 0.1
"""A change is acted upon when nothing else changed for this long ..."""
LONGEST_SECONDS = 1.0
"""... or at the latest after this long, so that steady churn cannot hold it up."""


class Signal:
    """Tells one waiter that something changed; changes that come close together are one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Something changed."""
        self._event.set()

    async def wait(self, timeout: float) -> bool:
        """Return True after a change has settled, False when ``timeout`` seconds passed without one."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        await self._settle()
        return True

    async def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        latest = loop.time() + LONGEST_SECONDS
        while self._event.is_set() and loop.time() < latest:
            self._event.clear()
            await asyncio.sleep(QUIET_SECONDS)
        self._event.clear()


class Sources:
    """The caches of every source kind and of the fleet itself."""

    def __init__(self, kube: KubeClient, fleet: str, namespace: str, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._namespace = namespace
        self._fleet = fleet
        self.caches = [self._open(kube, resource) for resource in SOURCES]
        self.fleets = Cache(
            kube, PROXY_FLEETS, namespace, fields=f"metadata.name={fleet}", on_change=self._on_fleet_change
        )
        self._slices = next(cache for cache in self.caches if cache.resource == ENDPOINT_SLICES)
        self._generation = 0

    def _open(self, kube: KubeClient, resource: Resource) -> Cache:
        labels, fields = source_filters(resource)
        return Cache(kube, resource, labels=labels, fields=fields, on_change=self._on_source_change)

    def _on_source_change(self, _kind: str, _body: Object) -> None:
        self._changed()

    def _on_fleet_change(self, _kind: str, body: Object) -> None:
        """Act on a change of the spec only: the status is written by ourselves."""
        generation = int(body["metadata"].get("generation", 0))
        if generation != self._generation:
            self._generation = generation
            self._changed()

    def all(self) -> Iterable[Cache]:
        """Return every cache."""
        return (*self.caches, self.fleets)

    @property
    def synced(self) -> bool:
        """Whether every cache has its first list."""
        return all(cache.synced.is_set() for cache in self.all())

    async def wait_synced(self) -> None:
        """Wait for the first list of every kind."""
        await asyncio.gather(*(cache.synced.wait() for cache in self.all()))

    def objects(self) -> Iterator[Object]:
        """Iterate over the source objects of all kinds."""
        for cache in self.caches:
            yield from cache

    def fleet(self) -> Object | None:
        """Return the ProxyFleet as it was seen last."""
        return self.fleets.objects.get((self._namespace, self._fleet))

    def slices(self, service: str) -> list[Object]:
        """Return the EndpointSlices of a Service in the fleet's namespace."""
        return [
            piece
            for piece in self._slices
            if piece["metadata"]["namespace"] == self._namespace
            and (piece["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == service
        ]
