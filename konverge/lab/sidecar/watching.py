"""The controller's view of the cluster: one list-watch for every kind it knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from konverge.kube.caching import Cache, Listener
from konverge.kube.client import KubeClient
from konverge.kube.resources import CRDS, SOURCES, Object, Resource

BEHIND_GATES = frozenset({"TCPRoute", "UDPRoute", "TLSRoute", "KongServiceFacade"})
"""Kinds that are watched only with the feature gates GatewayAlpha and KongServiceFacade, off by default."""
WATCHED: tuple[Resource, ...] = (*(source for source in SOURCES if source.kind not in BEHIND_GATES), CRDS)
"""24 source kinds, and the definitions by which the real controller notices kinds that appear later."""


class ClusterView:
    """Caches of all watched kinds; ``changes`` grows with every event that can change the translation."""

    def __init__(self, kube: KubeClient) -> None:
        self.changes = 0
        self._caches = {resource: Cache(kube, resource, on_change=self._note(resource)) for resource in WATCHED}

    async def run(self) -> None:
        """Keep all caches current until cancelled."""
        async with asyncio.TaskGroup() as group:
            for resource, cache in self._caches.items():
                group.create_task(cache.run(), name=f"watch {resource.plural}")

    async def wait_until_synced(self) -> None:
        """Return once every kind has been listed, or is known not to be served."""
        for cache in self._caches.values():
            await cache.synced.wait()

    def of(self, resource: Resource) -> Cache:
        """Return the cache of a watched kind."""
        return self._caches[resource]

    def sources(self) -> Iterator[Object]:
        """Yield every object that a configuration is rendered from."""
        for resource, cache in self._caches.items():
            if resource != CRDS:
                yield from cache

    def _note(self, resource: Resource) -> Listener | None:
        def count(*_: object) -> None:
            self.changes += 1

        return None if resource == CRDS else count
