"""A fleet whose runner is Prefect: a server with our deployments, a worker that can be killed, and what runs say."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from konverge.cli.demo.staging import NAMESPACE, SERVICE, install_crds
from konverge.decide.objects import build_controller_objects, build_fleet_objects
from konverge.kube.resources import NAMESPACES, Object
from konverge.lab.supervisor.furnishing import SAMPLE_NAMESPACE, furnish
from konverge.model.condition import Condition, find_condition
from konverge.model.fleet import Fleet, FleetSpec, Rollout
from konverge.operate.fleets import apply_fleet
from konverge.operate.identities import ensure_identity
from konverge.operate.orchestrator import PrefectServer, client_environment
from konverge.operate.workloads import all_ready, apply_objects, wait_for_deployment
from tests.e2e.living_fleet import IMAGE, describe, serve, until
from tests.e2e.scenario import FLEET, Scenario

POOL = "konverge"
READY_SECONDS = 240.0
BLOCKED = "RunnerBlocked"
START_SECONDS, SILENT_SECONDS = 6.0, 12.0
"""What the controller is told: long enough for a loaded machine, short enough for a test."""


async def deploy(server: PrefectServer, home: Path) -> None:
    """Work pool, automations and the deployments of prefect.yaml, as `konverge server bootstrap` makes them."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flows.bootstrap"),
        env=client_environment(server, home),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 180)
    assert process.returncode == 0, said.decode()


class Worker:
    """A worker process of the pool, on the machine of the test."""

    def __init__(self, server: PrefectServer, home: Path, kubeconfig: Path) -> None:
        self.log = home / "worker.log"
        self._environment = {
            **client_environment(server, home),
            "KUBECONFIG": str(kubeconfig),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_PREFETCH_SECONDS": "1",
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; it polls from then on."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool", POOL),
                env=self._environment,
                cwd=self.log.parent,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def lives(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> int:
        """SIGKILL to the worker and to the processes of its runs, as when its pod is lost; returns how many."""
        process, self._process = self._process, None
        if process is None:
            return 0
        found = [process.pid, *find_descendants(process.pid)]
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await process.wait()
        return len(found)


def find_descendants(ancestor: int) -> list[int]:
    """The processes below one (proc(5): the second field after the name is the parent)."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(place.parent.name)] = int(place.read_text().rpartition(")")[2].split()[1])
    found, fresh = [], [ancestor]
    while fresh:
        fresh = [pid for pid, parent in parents.items() if parent in fresh]
        found += fresh
    return found


async def given_a_fleet_that_prefect_runs(scenario: Scenario, proxies: int) -> Fleet:
    """Deploy a fleet whose controller delegates, and wait until every proxy carries traffic."""
    kube = scenario.kube
    await furnish(kube, legacy=0, sample=True)
    # The endpoints of the sample are complete before the first run: each later change is a run of its own.
    await scenario.lab.wait_ready(SAMPLE_NAMESPACE, timeout=READY_SECONDS)
    await install_crds(kube)
    await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    rollout = Rollout(canary=1, wave_size=1, growth=1, soak_seconds=0.5)
    spec = FleetSpec(proxy_service=SERVICE, replicas=proxies, rollout=rollout, runner="prefect")
    fleet = await apply_fleet(kube, FLEET, NAMESPACE, spec)
    await ensure_identity(kube, fleet)
    controller = [tell(body, scenario.prefect) for body in build_controller_objects(fleet, IMAGE)]
    await apply_objects(kube, [*build_fleet_objects(fleet), *controller, serve(fleet)])
    try:
        await wait_for_deployment(kube, fleet.deployment, NAMESPACE, READY_SECONDS, all_ready)
    except Exception as error:
        raise AssertionError(f"{error}\n{await describe(scenario)}") from error
    return fleet


def tell(body: Object, server: PrefectServer) -> Object:
    """Tell the controller where Prefect is, and how patient to be."""
    if body["kind"] == "Deployment":
        values = {
            "PREFECT_API_URL": server.url,
            "KONVERGE_RUN_START_SECONDS": str(START_SECONDS),
            "KONVERGE_RUN_SILENT_SECONDS": str(SILENT_SECONDS),
        }
        (container,) = body["spec"]["template"]["spec"]["containers"]
        container["env"] = [{"name": name, "value": value} for name, value in values.items()]
    return body


@asynccontextmanager
async def reading(server: PrefectServer) -> AsyncIterator[Runs]:
    """Read what the server knows while the block runs."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as http:
        yield Runs(http)


class Runs:
    """The runs of the fleet's deployments as Prefect shows them."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def all(self, flow: str) -> list[dict[str, Any]]:
        """The runs of a flow, the oldest first."""
        wanted = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found: list[dict[str, Any]] = await self._ask("/flow_runs/filter", wanted)
        return found

    async def ended(self, flow: str) -> list[dict[str, Any]]:
        """The runs of a flow after all of them have ended."""

        async def check() -> bool:
            return all(run["end_time"] for run in await self.all(flow))

        await until(check, f"a run of {flow} does not end")
        return await self.all(flow)

    async def artifacts(self, run: dict[str, Any]) -> list[dict[str, Any]]:
        """The artifacts of a run."""
        found: list[dict[str, Any]] = await self._ask(
            "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
        )
        return found

    async def _ask(self, path: str, body: dict[str, Any]) -> Any:
        async with asyncio.timeout(60):
            while (answer := await self._http.post(path, json=body)).status_code == 503:  # noqa: ASYNC110 - SQLite
                await asyncio.sleep(0.2)
        return answer.raise_for_status().json()


async def until_blocked(scenario: Scenario, reason: str) -> Condition:
    """Wait until the fleet's status says why nothing is pushed; "" waits until nothing is in the way."""

    async def check() -> Condition | None:
        condition = find_condition((await scenario.fleet()).status.conditions, BLOCKED)
        found = condition.reason if condition is not None and condition.status == "True" else ""
        return condition if found == reason else None

    try:
        found: Condition = await until(check, f"the fleet's status does not say {reason or 'that Prefect works'}")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{await describe(scenario)}") from None
    return found
