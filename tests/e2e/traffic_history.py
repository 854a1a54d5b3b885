"""Who was in traffic when, by the API server's own order of events: pods with their gate, endpoints of a Service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from konverge.kube.caching import Cache
from konverge.kube.client import KubeClient
from konverge.kube.resources import ENDPOINT_SLICES, PODS, Object
from konverge.model.proxy import CONFIGURED_GATE


@dataclass
class Life:
    """Moments of one pod: seconds of this machine's clock, and versions of the store, which are in order."""

    created: float
    running: float | None = None
    """Its container runs, as the kubelet says."""
    in_traffic: float | None = None
    gate_open: int | None = None
    """The version at which its gate opened."""


@dataclass
class History:
    """The lives of all pods of a fleet; ``changed`` is set with every event."""

    lives: dict[str, Life] = field(default_factory=dict)
    serving: frozenset[str] = frozenset()
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    joined: list[tuple[int, str]] = field(default_factory=list)
    """Who came into traffic, at which version. The two watches are two streams: what came first, versions tell."""

    def note_pod(self, kind: str, body: Object) -> None:
        """Take an event of a pod."""
        name, now = body["metadata"]["name"], time.monotonic()
        life = self.lives.setdefault(name, Life(now))
        status = body.get("status") or {}
        if life.running is None and any(
            "running" in (c.get("state") or {}) for c in status.get("containerStatuses", ())
        ):
            life.running = now
        gate = {c["type"]: c["status"] for c in status.get("conditions") or ()}.get(CONFIGURED_GATE)
        if kind != "DELETED" and gate == "True" and life.gate_open is None:
            life.gate_open = int(body["metadata"]["resourceVersion"])
        self.changed.set()

    def note_slice(self, kind: str, body: Object) -> None:
        """Take an event of the Service's endpoints."""
        version, now = int(body["metadata"]["resourceVersion"]), time.monotonic()
        ready = set()
        for endpoint in body.get("endpoints") or () if kind != "DELETED" else ():
            name = (endpoint.get("targetRef") or {}).get("name", "")
            if (endpoint.get("conditions") or {}).get("ready"):
                ready.add(name)
                if name not in self.serving:
                    self.joined.append((version, name))
                    life = self.lives.setdefault(name, Life(now))
                    life.in_traffic = life.in_traffic or now
        self.serving = frozenset(ready)
        self.changed.set()

    def find_early(self) -> list[str]:
        """Return the pods that were in traffic at a version before the one at which their gate opened."""
        found = []
        for version, name in self.joined:
            opened = self.lives[name].gate_open
            if opened is None or opened > version:
                found.append(f"{name} was in traffic at {version}, its gate opened at {opened or 'no time'}")
        return found

    async def until_serving(self, count: int, timeout: float) -> None:
        """Wait until exactly so many pods are in traffic."""
        try:
            async with asyncio.timeout(timeout):
                while len(self.serving) != count:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"{len(self.serving)} of {count} pods are in traffic after {timeout:.0f} s"
            ) from None


@asynccontextmanager
async def watching(kube: KubeClient, namespace: str, service: str, labels: dict[str, str]) -> AsyncIterator[History]:
    """Follow the pods with labels and the endpoints of a Service while the block runs."""
    history = History()
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    pods = Cache(kube, PODS, namespace, selector, on_change=history.note_pod)
    slices = Cache(
        kube, ENDPOINT_SLICES, namespace, f"kubernetes.io/service-name={service}", on_change=history.note_slice
    )
    tasks = [asyncio.create_task(cache.run()) for cache in (pods, slices)]
    try:
        await asyncio.gather(pods.synced.wait(), slices.synced.wait())
        # Of those that are there the first version with an open gate is not known.
        history.joined.clear()
        history.lives.clear()
        yield history
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
