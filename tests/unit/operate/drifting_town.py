"""A fleet with revisions and proxies in memory, for audits and rollbacks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from konverge.kong.declarative import Configuration, flatten, serialise
from konverge.kube.resources import ENDPOINT_SLICES, PODS, PROXY_FLEETS
from konverge.model.fleet import Fleet, FleetSpec, FleetStatus
from konverge.model.proxy import Proxy
from konverge.model.revision import Revision, RevisionOutcome
from konverge.operate.fleets import load_fleet
from konverge.operate.revisions import record_verdict, store_revision
from tests.unit.operate.fake_gateways import FakeGateways, FakeProxy
from tests.unit.operate.fake_kube import FakeKube

NOW = datetime(2026, 5, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
KEY = "hunter2-very-secret"


def document(*paths: str, key: str = "") -> dict[str, Any]:
    """A configuration with a route for each path, and a consumer with a key."""
    routes = [{"name": f"r{path.strip('/')}", "paths": [path]} for path in paths]
    consumer = {"username": "ann", "keyauth_credentials": [{"key": key}]} if key else {"username": "ann"}
    return {"services": [{"name": "web", "host": "web", "routes": routes}], "consumers": [consumer]}


class Town:
    """One fleet, three proxies, and what is stored of it."""

    def __init__(self, proxies: int = 3, **spec: Any) -> None:
        self.kube, self.gateways = FakeKube(), FakeGateways()
        self.read: list[str] = []
        self.loaded: dict[str, dict[str, Any]] = {}
        body = {"metadata": {"name": "shop"}, "spec": FleetSpec(proxy_service="s", **spec).to_json()}
        self.kube.put(PROXY_FLEETS, body)
        self.proxies = [self.gateways.add(f"p{i}") for i in range(proxies)]
        for proxy in self.proxies:
            self.kube.put(PODS, {"metadata": {"name": proxy.name}, "status": {"conditions": []}})
        self.kube.virtual[ENDPOINT_SLICES] = self._slices

    def _slices(self) -> list[dict[str, Any]]:
        endpoints = [
            {
                "addresses": [proxy.ip],
                "conditions": {"serving": proxy.ready},
                "targetRef": {"kind": "Pod", "name": proxy.name, "uid": proxy.uid},
            }
            for proxy in self.proxies
        ]
        labels = {"kubernetes.io/service-name": "shop-gateway-admin"}
        return [{"metadata": {"name": "s", "namespace": "default", "labels": labels}, "endpoints": endpoints}]

    async def fleet(self) -> Fleet:
        return await load_fleet(self.kube, "shop", "default")

    async def store(self, content: bytes, verdict: RevisionOutcome | None = None) -> Revision:
        draft = Revision(number=0, content=content, marker=content[-40:].decode())
        revision = await store_revision(self.kube, await self.fleet(), draft, clock=lambda: NOW)
        self.gateways.markers[revision.hash] = revision.marker
        if verdict is not None:
            await record_verdict(self.kube, await self.fleet(), revision.number, verdict, "Because", "of it")
        return revision

    def enforce(self, revision: Revision, good: int = 0) -> None:
        """Make a revision the current one, loaded by every proxy."""
        status = FleetStatus(
            current_revision=revision.number, current_hash=revision.hash, last_good_revision=good or revision.number
        )
        self.kube.one(PROXY_FLEETS, "shop")["status"] = status.to_json()
        for fake in self.gateways.proxies.values():
            load(fake, revision)

    async def read_entities(self, proxy: Proxy) -> Configuration:
        """What pages a proxy, in a test."""
        self.read.append(proxy.name)
        return flatten(self.loaded[proxy.name])

    def post_by_hand(self, name: str, content: dict[str, Any]) -> None:
        """Somebody else pushes to a proxy."""
        self.loaded[name] = content
        load(self.gateways.proxies[name], Revision(number=0, content=serialise(content)))


def load(fake: FakeProxy, revision: Revision) -> None:
    """Let a proxy run a revision."""
    fake.loaded, fake.routes = revision.hash, revision.marker
