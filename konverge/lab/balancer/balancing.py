"""The balancer: watches Services and EndpointSlices and keeps the listeners in step, late as on a cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from konverge.kube.client import KubeClient
from konverge.kube.resources import ENDPOINT_SLICES, SERVICES, Object
from konverge.lab.balancer.choosing import Chooser
from konverge.lab.balancer.counting import Counts
from konverge.lab.balancer.faults import Faults
from konverge.lab.balancer.listening import Listeners
from konverge.lab.balancer.publishing import Publisher
from konverge.lab.balancer.settings import BalancerSettings
from konverge.lab.balancer.syncing import Syncing
from konverge.lab.balancer.tables import Table, Tier, build_table
from konverge.lab.controllers.caching import Cache


class Balancer:
    """Runs inside an event loop; use as ``async with balancer.running():``."""

    def __init__(self, client: KubeClient, settings: BalancerSettings) -> None:
        self.settings = settings
        self.counts = Counts()
        self.listeners = Listeners(Chooser(settings.choice == "round-robin"), self.counts)
        self._services = Cache(client, SERVICES)
        self._slices = Cache(client, ENDPOINT_SLICES)
        self._publisher = Publisher(client)
        self._tables: dict[Tier, Table] = {"cluster": {}, "cloud": {}}
        self._tiers: dict[Tier, Syncing] = {
            "cluster": Syncing(lambda: self._sync("cluster"), settings.cluster_delay()),
            "cloud": Syncing(lambda: self._sync("cloud"), settings.cloud_delay()),
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Balance until the block ends; what exists at the start is there at once, as after a reboot."""
        tasks = [asyncio.create_task(cache.run()) for cache in (self._services, self._slices)]
        try:
            for cache in (self._services, self._slices):
                await cache.synced.wait()
            for tier in self._tiers:
                self._sync(tier)
            self._services.subscribe(lambda _old, _new: self._notice())
            self._slices.subscribe(lambda _old, _new: self._notice())
            yield
        finally:
            for syncing in self._tiers.values():
                syncing.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._publisher.stop()
            self.listeners.close()

    def inject(self, faults: Faults) -> None:
        """Replace the faults in force; taking ``frozen`` back makes missed changes noticed."""
        thawed = self.listeners.faults.frozen and not faults.frozen
        self.listeners.faults = faults
        if thawed:
            self._notice()

    def describe(self) -> Object:
        """Return the state as JSON: rules, where they listen, what could not be bound."""
        listeners = self.listeners
        return {
            "rules": [
                {
                    "address": f"{ip}:{port}",
                    "bound": ":".join(map(str, listeners.moved.get((ip, port), (ip, port)))),
                    "open": (ip, port) in listeners.open,
                    "service": rule.service,
                    "port": rule.port,
                    "backends": [f"{host}:{number}" for host, number in rule.backends],
                    "error": listeners.failed.get((ip, port)),
                }
                for (ip, port), rule in sorted(listeners.rules.items())
            ],
            "pending": [tier for tier, syncing in self._tiers.items() if syncing.pending],
            "faults": listeners.faults.model_dump(),
        }

    def _notice(self) -> None:
        for syncing in self._tiers.values():
            syncing.notice()

    def _sync(self, tier: Tier) -> None:
        if self.listeners.faults.frozen:
            return
        table = build_table(self._services.items(), self._slices.items(), tier, self.settings.node_address)
        self.listeners.apply(self._tables[tier], table)
        self._tables[tier] = table
        self.counts.syncs[tier] += 1
        if tier == "cloud":
            self._publisher.publish(self._services.items(), self.listeners.moved)
