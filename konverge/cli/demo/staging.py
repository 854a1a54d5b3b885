"""Sets the stage of the demo: a lab with the legacy topology, a Prefect server, and a load on the proxies."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from konverge.errors import Unavailable
from konverge.kong.probing import ProbeRequest, ProbeTarget, probe_until_ok
from konverge.kube.client import KubeClient
from konverge.kube.crds import build_crds
from konverge.kube.resources import CRDS
from konverge.lab.legacy.sample import SHOP, sample_load
from konverge.lab.load.plan import LoadPlan
from konverge.lab.supervisor.detaching import start_detached
from konverge.lab.supervisor.furnishing import LEGACY_NAMESPACE, LEGACY_RELEASE, furnish
from konverge.lab.supervisor.locating import find_address
from konverge.lab.supervisor.running import Lab
from konverge.lab.supervisor.settings import LabSettings
from konverge.lab.supervisor.supervising import Report
from konverge.lab.supervisor.waiting import wait_for_deployments
from konverge.operate.orchestrator import PrefectServer, find_server, start_server, stop_server

RELEASE, NAMESPACE = LEGACY_RELEASE, LEGACY_NAMESPACE
SERVICE = f"{LEGACY_RELEASE}-kong-proxy"
ROUTED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Stage:
    """What the scenes of the demo work with."""

    kubeconfig: str
    kube: KubeClient
    prefect: PrefectServer | None
    plan: LoadPlan
    idle_watches: int
    """Watches that the lab itself holds open, before the legacy topology came."""


@asynccontextmanager
async def set_stage(
    name: str, *, proxies: int, rate: float, prefect: bool, keep: bool, report: Report
) -> AsyncIterator[Stage]:
    """Start everything, and end everything with the block; with ``keep`` lab and server outlive the command."""
    settings = LabSettings(name=name)
    server_home = settings.home / "prefect" / name
    async with _open_lab(settings, report, keep=keep) as kubeconfig, await KubeClient.connect(kubeconfig) as kube:
        starting = asyncio.create_task(_open_prefect(server_home, report)) if prefect else None
        try:
            idle = await count_watches(kube)
            plan = await _furnish(kube, settings, proxies, rate, report)
            yield Stage(str(kubeconfig), kube, await starting if starting else None, plan, idle)
        finally:
            if starting is not None and not keep:
                await asyncio.gather(starting, return_exceptions=True)
                await stop_server(server_home)
                await asyncio.to_thread(shutil.rmtree, server_home, ignore_errors=True)


@asynccontextmanager
async def _open_lab(settings: LabSettings, report: Report, *, keep: bool) -> AsyncIterator[Path]:
    """Start a lab that ends with the block, or one that stays until ``konverge lab down``."""
    if keep:
        state = await asyncio.to_thread(start_detached, settings, report)
        yield state.kubeconfig
        return
    async with Lab.start(settings, report) as lab:
        yield lab.kubeconfig


async def _furnish(kube: KubeClient, settings: LabSettings, proxies: int, rate: float, report: Report) -> LoadPlan:
    report("workloads", "applying")
    await furnish(kube, legacy=proxies, sample=True)
    await install_crds(kube)
    report("workloads", "rolling out")
    await wait_for_deployments(kube, settings.ready_timeout)
    report("workloads", "ready")
    host, port = await find_address(kube, SERVICE, NAMESPACE)
    await wait_routed(host, port)
    return sample_load(f"http://{host}:{port}", rate)


async def _open_prefect(home: Path, report: Report) -> PrefectServer:
    """Use the configured server, else start one for the demo alone."""
    if os.environ.get("PREFECT_API_URL"):
        found = await find_server()
        if found is not None:
            return found
    report("prefect", "starting")
    server = await start_server(home)
    report("prefect", server.ui)
    return server


async def wait_routed(host: str, port: int) -> None:
    """Wait until the load balancer leads to proxies that route: it notices new endpoints some seconds late."""
    result = await probe_until_ok(
        ProbeTarget(host, port), ProbeRequest("/", {"Host": SHOP}), within=ROUTED_SECONDS, connections=8
    )
    if not result.ok:
        raise Unavailable(f"The lab's proxies at {host}:{port} do not route: {result.describe()}", reason="NotRouted")


async def install_crds(kube: KubeClient) -> None:
    """Install the CRDs of konverge.dev and wait until they are served."""
    for crd in build_crds():
        await kube.apply(CRDS, crd)
    async with asyncio.timeout(30):
        for crd in build_crds():
            await _wait_established(kube, crd["metadata"]["name"])


async def _wait_established(kube: KubeClient, name: str) -> None:
    async for _, body in kube.watch(CRDS, fields=f"metadata.name={name}"):
        if _is_established(body):
            return


def _is_established(crd: dict[str, object]) -> bool:
    status = crd.get("status")
    conditions = status.get("conditions", []) if isinstance(status, dict) else []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


async def count_watches(kube: KubeClient) -> int:
    """Return how many watches the API server holds open, from its own counters."""
    text = (await kube.request("GET", "/metrics", accept="text/plain")).decode()
    lines = [line for line in text.splitlines() if line.startswith("apiserver_longrunning_requests{")]
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in lines if 'verb="WATCH"' in line))
