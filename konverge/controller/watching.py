"""The caches of the controller and what a change in them means.

One watch per source kind serves the whole fleet: their number does not depend on the number of proxies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from konverge.controller.queueing import ChangeQueue, Key
from konverge.kube.caching import Cache
from konverge.kube.client import KubeClient
from konverge.kube.pacing import Pace
from konverge.kube.presence import Presence
from konverge.kube.resources import (
    ENDPOINT_SLICES,
    PROXY_FLEETS,
    SEALED_IDENTITIES,
    SECRETS,
    SOURCES,
    Object,
    Resource,
)
from konverge.operate.compiling import Compiler
from konverge.operate.rendering import source_filters

SERVICE_LABEL = "kubernetes.io/service-name"
NO_BYTES = "!konverge.dev/revision,!konverge.dev/last-valid"
"""Leaves out the Secrets that hold configurations: of the fleet's own only the identities are left."""


class Sources:
    """The caches of every source kind, of the fleet itself and of its identities."""

    def __init__(
        self,
        kube: KubeClient,
        fleet: str,
        namespace: str,
        queue: ChangeQueue,
        compiler: Compiler | None = None,
        admin_service: str = "",
    ) -> None:
        self.queue = queue
        self.compiler = compiler or Compiler()
        self._namespace = namespace
        self._fleet = fleet
        self._admin_service = admin_service or f"{fleet}-gateway-admin"
        self.pace, self._presence = Pace(), Presence(kube)
        self.caches = [self._open(kube, resource) for resource in SOURCES]
        labels = f"konverge.dev/fleet={fleet}"
        self.fleets = self._add(kube, PROXY_FLEETS, fields=f"metadata.name={fleet}")
        self.fleets.on_change = self._on_fleet_change
        self.identities = [
            self._add(kube, SECRETS, labels=f"{labels},{NO_BYTES}"),
            self._add(kube, SEALED_IDENTITIES, labels=labels),
        ]
        for cache in self.identities:
            cache.on_change = self._on_identity_change
        self._slices = next(cache for cache in self.caches if cache.resource == ENDPOINT_SLICES)
        self._spec = ("", 0)
        """Uid and generation of the fleet as we acted on it."""

    def _open(self, kube: KubeClient, resource: Resource) -> Cache:
        labels, fields = source_filters(resource)
        cache = Cache(kube, resource, labels=labels, fields=fields, pace=self.pace, presence=self._presence)
        cache.on_change = self._on_slice_change if resource == ENDPOINT_SLICES else self._on_source_change
        return cache

    def _add(self, kube: KubeClient, resource: Resource, *, labels: str = "", fields: str = "") -> Cache:
        place = {"pace": self.pace, "presence": self._presence}
        return Cache(kube, resource, self._namespace, labels, fields, **place)  # type: ignore[arg-type]

    def _on_source_change(self, kind: str, body: Object) -> None:
        self.compiler.take(kind, body)
        self.queue.add(Key.SOURCES)

    def _on_slice_change(self, kind: str, body: Object) -> None:
        self._on_source_change(kind, body)
        if self._is_ours(body, self._admin_service):
            self.queue.add(Key.PROXIES)

    def _on_identity_change(self, _kind: str, _body: Object) -> None:
        self.queue.add(Key.IDENTITY)

    def _on_fleet_change(self, kind: str, body: Object) -> None:
        """Act on a change of the spec only: the status is written by ourselves."""
        metadata = body["metadata"]
        spec = metadata.get("uid", ""), int(metadata.get("generation", 0))
        if spec != self._spec or kind == "DELETED":
            self._spec = spec if kind != "DELETED" else ("", 0)
            for key in Key:
                self.queue.add(key)

    def wake(self) -> None:
        """Have the proxies looked at again."""
        self.queue.add(Key.PROXIES)

    def all(self) -> Iterable[Cache]:
        """Return every cache."""
        return (*self.caches, self.fleets, *self.identities)

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

    def versions(self) -> dict[str, str]:
        """Return the newest resourceVersion that was seen of each source kind."""
        return {cache.resource.kind: cache.version for cache in self.caches if cache.version}

    def fleet(self) -> Object | None:
        """Return the ProxyFleet as it was seen last."""
        return self.fleets.objects.get((self._namespace, self._fleet))

    def slices(self, service: str) -> list[Object]:
        """Return the EndpointSlices of a Service in the fleet's namespace."""
        return [piece for piece in self._slices if self._is_ours(piece, service)]

    def _is_ours(self, piece: Object, service: str) -> bool:
        metadata = piece["metadata"]
        return (
            metadata["namespace"] == self._namespace and (metadata.get("labels") or {}).get(SERVICE_LABEL) == service
        )
