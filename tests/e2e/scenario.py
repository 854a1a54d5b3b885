"""Given, when, then: a lab with the legacy topology, a load on it, an operation, and what must hold afterwards."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from konverge.cli.demo.staging import NAMESPACE, RELEASE, SERVICE, count_watches, install_crds, wait_routed
from konverge.cli.running import run_flow
from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.resources import DEPLOYMENTS, PODS, SERVICES
from konverge.lab.legacy.sample import sample_load
from konverge.lab.load.process import LoadProcess
from konverge.lab.load.report import FailureSample, LoadReport
from konverge.lab.supervisor.furnishing import furnish
from konverge.lab.supervisor.running import Lab
from konverge.lab.supervisor.settings import LabSettings
from konverge.model.fleet import Fleet
from konverge.model.migration import MigrationSpec
from konverge.model.proxy import ProxyStatus
from konverge.model.rotation import RotationKind
from konverge.model.target import Target
from konverge.operate.fleets import list_instances, load_fleet
from konverge.operate.migrations import apply_migration, load_migration
from konverge.operate.orchestrator import PrefectServer
from konverge.operate.workloads import all_ready, list_pods, scale, wait_for_deployment

CONTROL_PLANE = "KONVERGE_E2E_CONTROL_PLANE"
"""``real`` runs the scenarios on a real control plane; tools/test_kube.py does, in a private network."""
FLEET = "shop"
RATE = 200.0
SETTLE_SECONDS = 3.0
"""Load before and after an operation, so that late effects are counted too."""

CALM_MS = 20.0
"""The load generator starts 99 of 100 requests no later than this where the machine has time for everybody."""
KEPT_PER_PROXY = 6
"""Of the 16 connections that carry the POSTs, with three proxies."""


@dataclass
class Scenario:
    """One lab and what happens in it."""

    lab: Lab
    kube: KubeClient
    prefect: PrefectServer
    idle_watches: int
    target: Target
    reports: list[LoadReport] = field(default_factory=list)

    # given

    async def given_a_legacy_release(self, proxies: int = 3) -> None:
        """Three proxies with a controller each, sample applications behind them."""
        await furnish(self.kube, legacy=proxies, sample=True)
        await install_crds(self.kube)
        await self.lab.wait_ready(timeout=90)

    # when

    async def when_migrated(self, **changes: Any) -> None:
        """The migration flow runs to its end."""
        await self.start_migration(**changes)

    async def start_migration(self, **changes: Any) -> Any:
        """Create the FleetMigration and run its flow."""
        options = {"soak_seconds": 0.5, "drain_seconds": 30.0, **changes}
        spec = MigrationSpec(fleet=FLEET, release=RELEASE, **options)
        await apply_migration(self.kube, RELEASE, NAMESPACE, spec)
        return await self.run("legacy-migration", migration=RELEASE)

    async def when_rolled_back(self) -> None:
        """The rollback flow runs to its end."""
        await self.run("migration-rollback", migration=RELEASE)

    async def when_rotated(self, kind: RotationKind) -> dict[str, str]:
        """The rotation flow runs to its end."""
        report = (await self.run("cert-rotation", kind=kind.value)).value
        return {step["step"]: step["message"] for step in report["steps"]}

    async def when_scaled(self, replicas: int) -> None:
        """The fleet's Deployment is scaled and waited for."""
        fleet = await self.fleet()
        await scale(self.kube, fleet.deployment, NAMESPACE, replicas)
        await wait_for_deployment(self.kube, fleet.deployment, NAMESPACE, 90, all_ready)

    async def run(self, flow: str, **parameters: Any) -> Any:
        """Run a flow as the command does: in a process of its own."""
        return await run_flow(flow, {"target": self.target.to_json(), **parameters}, server=self.prefect)

    @asynccontextmanager
    async def under_load(self, rate: float = RATE) -> AsyncIterator[LoadProcess]:
        """Every kind of traffic while the block runs, and some seconds before and after."""
        host, port = await self.lab.address_of(SERVICE, NAMESPACE)
        await wait_routed(host, port)
        async with LoadProcess(sample_load(f"http://{host}:{port}", rate)) as load:
            await load.mark("before")
            await asyncio.sleep(SETTLE_SECONDS)
            await load.mark("during")
            yield load
            await load.mark("after")
            await asyncio.sleep(SETTLE_SECONDS)
            self.reports.append(await load.stop())

    # then

    def then_no_request_failed(self, at_least: int = 1000) -> None:
        """Not one request or session of the last load failed, and there were enough to mean something."""
        report = self.reports[-1]
        shown = [
            f"{f.offset:.2f}s {f.phase} {f.class_name}/{f.target} {f.kind} {f.detail}" for f in report.failures[:20]
        ]
        assert report.requests.failed == 0, "\n".join(shown)
        assert report.requests.total >= at_least
        assert report.lines.received > 0
        assert report.messages.echoed > 0

    def then_nothing_failed_but_the_race(self, reloads: int) -> None:
        """As above, but for a race that is not Konverge's to win, with one of so many reloads.

        A POST that a client writes on a kept connection after a reloaded nginx has closed it and before the client's
        machine knows has no answer and no effect (tests/integration/kong/test_nginx_reload.py), and HTTP forbids to
        repeat it unasked (RFC 9110, 9.2.2). There are at most as many as reloads; on an overloaded machine, where
        bytes are passed on late, at most as many as connections were closed: a reload closes each once.
        """
        report = self.reports[-1]
        raced = [f for f in report.failures if _is_unread(f)]
        others = [f for f in report.failures if f not in raced]
        lag = report.schedule.p99_lag_ms
        print(f"{report.requests.total} requests, {reloads} reloads, {len(raced)} POSTs never read, lag {lag} ms")
        assert others == [], f"{len(others)} failed; {report.schedule}"
        assert report.requests.failed == len(raced) <= reloads * (1 if lag < CALM_MS else KEPT_PER_PROXY)
        assert report.requests.total >= 1000
        assert report.lines.received > 0
        assert report.messages.echoed > 0

    async def then_the_service_selects(self, labels: dict[str, str]) -> None:
        """The traffic goes where it should."""
        assert (await self.kube.get(SERVICES, SERVICE, NAMESPACE))["spec"]["selector"] == labels

    async def then_every_proxy_is_in_sync(self, count: int, timeout: float = 20.0) -> dict[str, ProxyStatus]:
        """The status of every proxy says so: one hash, mutual TLS, traffic."""
        instances: dict[str, ProxyStatus] = {}
        async with asyncio.timeout(timeout):
            while True:
                fleet = await self.fleet()
                instances = await list_instances(self.kube, fleet)
                synced = [s for s in instances.values() if s.loaded_hash == fleet.status.current_hash]
                if len(instances) == count == len(synced):
                    break
                await asyncio.sleep(0.2)
        assert all(s.traffic_ready and s.mtls.expires for s in instances.values())
        return instances

    async def fleet(self) -> Fleet:
        """Read the fleet."""
        return await load_fleet(self.kube, FLEET, NAMESPACE)

    async def controllers(self) -> int:
        """Count the running controllers of both kinds."""
        pods = [p for p in await self.kube.list_all(PODS, NAMESPACE) if not p["metadata"].get("deletionTimestamp")]
        names = [c["name"] for pod in pods for c in pod["spec"]["containers"]]
        return names.count("ingress-controller") + names.count("controller")

    async def watches(self) -> int:
        """Count the watches beyond the lab's own."""
        return await count_watches(self.kube) - self.idle_watches

    async def legacy_replicas(self) -> int:
        """Read the replicas of the legacy Deployment."""
        return int((await self.kube.get(DEPLOYMENTS, f"{RELEASE}-kong", NAMESPACE))["spec"]["replicas"])

    async def pods(self, labels: dict[str, str]) -> list[str]:
        """List the names of pods with labels."""
        return [pod["metadata"]["name"] for pod in await list_pods(self.kube, NAMESPACE, labels)]

    async def journal(self) -> dict[str, str]:
        """Read the journal of the migration: step to state."""
        migration = await load_migration(self.kube, RELEASE, NAMESPACE)
        return {record.step.value: record.state.value for record in migration.status.steps}


def _is_unread(failure: FailureSample) -> bool:
    """Whether a request that may not be repeated met a closed connection: an end or a reset, and nothing before."""
    unanswered = failure.kind in ("eof_before_response", "reset") and "within the response" not in failure.detail
    return failure.class_name == "bodies" and unanswered


@asynccontextmanager
async def open_scenario(
    name: str, home: Path, prefect: PrefectServer, *, audit: bool = False
) -> AsyncIterator[Scenario]:
    """Start an empty lab for a scenario and end it with the block."""
    plane: Literal["lab", "real"] = "real" if os.environ.get(CONTROL_PLANE) == "real" else "lab"
    settings = LabSettings(name=f"{name}-{os.getpid()}", home=home, control_plane=plane, audit=audit)
    async with Lab.start(settings) as lab, await lab.client() as kube:
        target = Target(fleet=FLEET, namespace=NAMESPACE, kubeconfig=str(lab.kubeconfig))
        yield Scenario(lab, kube, prefect, await count_watches(kube), target)


async def until_journal(scenario: Scenario, step: str, state: str, timeout: float = 60.0) -> None:
    """Wait until the journal shows a step in a state."""
    async with asyncio.timeout(timeout):
        while True:
            try:
                if (await scenario.journal()).get(step) == state:
                    return
            except KonvergeError:
                pass
            await asyncio.sleep(0.05)
