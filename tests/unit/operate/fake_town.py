"""A namespace with a legacy release and a fleet beside it, whose Deployments and EndpointSlices follow at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fake_gateways import FakeGateways
from fake_kube import Call, FakeKube

from konverge.kube.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    FLEET_MIGRATIONS,
    PODS,
    PROXY_FLEETS,
    SERVICES,
    Object,
)
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.migration import Migration, MigrationSpec, Step
from konverge.model.revision import Revision
from konverge.model.target import Target
from konverge.operate.fleets import load_fleet, update_fleet_status
from konverge.operate.migrating import Site, StepWork, run_step
from konverge.operate.migrations import load_migration
from konverge.operate.revisions import store_revision
from konverge.operate.steps import STEPS, restore_legacy

LEGACY = {"app.kubernetes.io/name": "kong", "app.kubernetes.io/instance": "kong"}
SERVICE = "kong-proxy"
FIRST = Revision(number=0, content=b'{"first":1}', marker="first")


class Town:
    """Three legacy proxies that serve and three proxies of the fleet that are configured and ready."""

    def __init__(self, legacy: int = 3, fleet: int = 3) -> None:
        self.kube, self.gateways = FakeKube(), FakeGateways()
        self.kube.virtual[ENDPOINT_SLICES] = self._slices
        self.kube.after.append(self._follow)
        self.wanted = legacy
        self.site = Site(self.kube, Target(fleet="shop"))
        self.size = fleet
        self.starting: dict[str, int] = {}
        self.lowest = legacy
        self.low_at = ""
        containers: list[Object] = [{"name": "proxy"}, {"name": "ingress-controller"}]
        self._deploy("kong-kong", LEGACY, legacy, containers)
        ports = [{"port": 80, "targetPort": 8000}]
        self.kube.put(SERVICES, {"metadata": {"name": SERVICE}, "spec": {"selector": dict(LEGACY), "ports": ports}})
        self.kube.put(
            PROXY_FLEETS,
            {"metadata": {"name": "shop"}, "spec": FleetSpec(proxy_service=SERVICE, replicas=fleet).to_json()},
        )
        spec = MigrationSpec(fleet="shop", release="kong", soak_seconds=0)
        self.kube.put(FLEET_MIGRATIONS, {"metadata": {"name": "kong"}, "spec": spec.to_json()})

    async def open(self) -> Town:
        """Bring the fleet up and write the way back down."""
        fleet = await self.fleet()
        self._deploy(fleet.deployment, fleet.labels, self.size, [{"name": "proxy"}])
        await self.publish(FIRST)
        await self.step(Step.SNAPSHOT)
        self.kube.after.append(self._measure)
        return self

    async def publish(self, draft: Revision) -> None:
        """What the controller does with a change: store it, push it everywhere, say that it is current."""
        fleet = await self.fleet()
        revision = await store_revision(self.kube, fleet, draft)
        for name in self.pods(fleet.labels):
            if name not in self.gateways.proxies:
                self.gateways.add(name)
            self.gateways.proxies[name].routes = revision.marker
        update = {"current_revision": revision.number, "last_good_revision": revision.number}
        await update_fleet_status(self.kube, fleet, lambda s: s.model_copy(update=update))

    async def fleet(self) -> Fleet:
        return await load_fleet(self.kube, "shop", "default")

    async def migration(self) -> Migration:
        return await load_migration(self.kube, "kong", "default")

    async def step(self, step: Step, work: StepWork | None = None) -> None:
        """Run a step with its journal, as the flow does."""
        await run_step(self.site, "kong", step, work or STEPS[step])

    async def forward(self) -> None:
        """Move the traffic and take the legacy proxies away; there is no connection to wait for."""
        for step in (Step.SHIFT, Step.DRAIN, Step.FINISH):
            await self.step(step, _nothing if step is Step.DRAIN else None)

    async def back(self) -> None:
        """Roll back."""
        await restore_legacy(self.site, await self.migration())

    # what is seen

    def pods(self, labels: dict[str, str]) -> list[str]:
        return [
            p["metadata"]["name"] for p in self.kube.all(PODS) if labels.items() <= p["metadata"]["labels"].items()
        ]

    def selector(self) -> dict[str, str]:
        return dict(self.kube.one(SERVICES, SERVICE)["spec"]["selector"])

    def serving(self) -> list[str]:
        """The ready pods that the Service selects."""
        ready = {p["metadata"]["name"] for p in self.kube.all(PODS) if _ready(p)}
        return [name for name in self.pods(self.selector()) if name in ready]

    def _measure(self, call: Call) -> None:
        if call.writes and len(self.serving()) < self.lowest:
            self.lowest, self.low_at = len(self.serving()), str(call)

    # what controllers do

    def _deploy(self, name: str, labels: dict[str, str], replicas: int, containers: list[Object]) -> None:
        template = {"metadata": {"labels": dict(labels)}, "spec": {"containers": containers}}
        spec = {"replicas": replicas, "selector": {"matchLabels": dict(labels)}, "template": template}
        metadata = {"name": name, "labels": {"app.kubernetes.io/instance": "kong"}}
        self.kube.put(DEPLOYMENTS, {"metadata": metadata, "spec": spec})
        self._roll_out(self.kube.one(DEPLOYMENTS, name))
        self._make_ready(self.kube.one(DEPLOYMENTS, name))
        self.starting.pop(name)

    def _follow(self, call: Call) -> None:
        """Create and remove pods at once; new ones become ready when their Deployment is looked at a second time."""
        if call.resource != DEPLOYMENTS or not call.name:
            return
        body = self.kube.one(DEPLOYMENTS, call.name)
        if call.writes:
            self._roll_out(body)
        elif self.starting.get(call.name, 0) > 1:
            self.starting[call.name] -= 1
        elif self.starting.pop(call.name, 0):
            self._make_ready(body)

    def _roll_out(self, body: Object) -> None:
        name, wanted = body["metadata"]["name"], body["spec"]["replicas"]
        labels = body["spec"]["selector"]["matchLabels"]
        for index in range(max(wanted, 10)):
            pod = f"{name}-{index}"
            exists = ("default", pod) in self.kube.objects.get(PODS, {})
            if index < wanted and not exists:
                self.starting[name] = 2
                self.add_pod(pod, labels)
            elif index >= wanted and exists:
                self.kube.drop(PODS, pod)
        ready = len([p for p in self.kube.all(PODS) if p["metadata"]["name"].startswith(name) and _ready(p)])
        counts = {"replicas": wanted, "updatedReplicas": wanted, "readyReplicas": ready}
        body["status"] = {**counts, "observedGeneration": body["metadata"]["generation"]}

    def _make_ready(self, body: Object) -> None:
        for pod in self.kube.all(PODS):
            if pod["metadata"]["name"].startswith(body["metadata"]["name"]):
                pod["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
        self._roll_out(body)

    def add_pod(self, name: str, labels: dict[str, str]) -> None:
        """A pod that runs but is not ready yet."""
        status = {"podIP": "127.0.0.9", "conditions": []}
        self.kube.put(PODS, {"metadata": {"name": name, "labels": dict(labels)}, "status": status})

    def _slices(self) -> list[Object]:
        admin = {"app.kubernetes.io/name": "konverge-gateway", "app.kubernetes.io/instance": "shop"}
        return [self._slice(SERVICE, self.selector()), self._slice("shop-gateway-admin", admin)]

    def _slice(self, service: str, selector: dict[str, str]) -> Object:
        endpoints = [
            {
                "addresses": [pod["status"]["podIP"]],
                "conditions": {"ready": _ready(pod), "serving": _ready(pod)},
                "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]},
            }
            for pod in self.kube.all(PODS)
            if selector.items() <= pod["metadata"]["labels"].items()
        ]
        labels = {"kubernetes.io/service-name": service}
        return {"metadata": {"name": service, "namespace": "default", "labels": labels}, "endpoints": endpoints}


def _ready(pod: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])


async def _nothing(*_: Any) -> str:
    return "nothing to wait for"


def gateways_of(town: Town) -> Any:
    """A stand-in for open_gateways."""

    @asynccontextmanager
    async def open_gateways(*_: Any) -> AsyncIterator[FakeGateways]:
        yield town.gateways

    return open_gateways
