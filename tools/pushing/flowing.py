"""Times the whole Prefect flow against the bare engine: the same sources, the same proxies, the same writes.

The lab's API server holds the fleet, its identities, the pods and Ingresses that render to about 1 MB. Bare gateways
in one process (``tools/changing/serving.py``) take the pushes and answer the marker. Before each run one Ingress
changes, so that both contenders list and render the sources, store a revision, push it in the fleet's waves over new
connections, read back, probe eight times per proxy, and write a ProxyInstance each and the fleet's status.

- ``bare``: what the flow calls, called without Prefect, in this process;
- ``tasks``: ``config-sync`` from the start of its first task run to the end of its last, as Prefect recorded them;
- ``run``: the flow run as Prefect recorded it; ``process``: what a user of the command waits for, interpreter and
  imports included.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT)]

from bench_render import TEAMS, make_objects  # noqa: E402

from konverge.cli.demo.staging import install_crds  # noqa: E402
from konverge.cli.running import run_flow  # noqa: E402
from konverge.kube.client import KubeClient  # noqa: E402
from konverge.kube.resources import (  # noqa: E402
    ENDPOINT_SLICES,
    INGRESS_CLASSES,
    INGRESSES,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICES,
)
from konverge.lab.addressing import claim_number  # noqa: E402
from konverge.model.fleet import FleetSpec, Rollout  # noqa: E402
from konverge.model.target import Target  # noqa: E402
from konverge.operate.claiming import claim_fleet  # noqa: E402
from konverge.operate.connecting import open_gateways  # noqa: E402
from konverge.operate.discovering import discover_proxies  # noqa: E402
from konverge.operate.falling_back import Desired, sync_sources  # noqa: E402
from konverge.operate.fleets import apply_fleet, load_fleet  # noqa: E402
from konverge.operate.identities import ensure_identity  # noqa: E402
from konverge.operate.orchestrator import PrefectServer, start_server, stop_server  # noqa: E402
from konverge.operate.recording import summarise_fleet  # noqa: E402
from konverge.operate.rendering import compile_revision, gather_sources  # noqa: E402
from konverge.operate.revisions import load_revision, read_versions  # noqa: E402
from tests.chaos.town import Api, Process  # noqa: E402

FLEET, NAMESPACE = "shop", "default"
ROUTES = 870
"""Ingresses that render to about 1 MB."""
RESOURCES = {r.kind: r for r in (INGRESS_CLASSES, SERVICES, ENDPOINT_SLICES, INGRESSES)}
ROLLOUT = Rollout(canary=1, growth=16.0)
RECORDED_SECONDS = 60.0
"""How long the Prefect server may take to write down what a run that has ended did."""


class Site:
    """The cluster of one measurement."""

    def __init__(self, directory: Path, kube: KubeClient, api: Api) -> None:
        self.directory, self.kube, self.api = directory, kube, api
        self.target = Target(fleet=FLEET, namespace=NAMESPACE, kubeconfig=api.kubeconfig)
        self.ingresses: list[dict[str, Any]] = []
        self.turn = 0

    async def change(self) -> None:
        """Change one Ingress."""
        self.turn += 1
        metadata = self.ingresses[self.turn * 37 % len(self.ingresses)]["metadata"]
        patch = {"metadata": {"annotations": {"konghq.com/regex-priority": str(self.turn)}}}
        await self.kube.patch(INGRESSES, metadata["name"], patch, metadata["namespace"])


@asynccontextmanager
async def open_site(directory: Path, proxies: int) -> AsyncIterator[Site]:
    """Start the API server and the gateways and create the objects."""
    claim = claim_number(directory / "claims")
    async with AsyncExitStack() as stack:
        stack.callback(claim.release)
        api = Api(directory, claim.number)
        stack.push_async_callback(api.process.end)
        await api.start()
        kube = await stack.enter_async_context(await KubeClient.connect(api.kubeconfig))
        site = Site(directory, kube, api)
        addresses = [f"127.{claim.number}.{64 + k // 250}.{k % 250 + 2}" for k in range(proxies)]
        await _declare(kube, addresses)
        site.ingresses = await _fill(kube)
        bare = Process(directory / "bare.log", "-m", "changing.serving", str(await _mount(site)), "0", *addresses)
        stack.push_async_callback(bare.end)
        await bare.start(stdout=asyncio.subprocess.PIPE, cwd=ROOT / "tools")
        assert bare.running is not None
        assert bare.running.stdout is not None
        await asyncio.wait_for(bare.running.stdout.readline(), 60)
        yield site


async def _declare(kube: KubeClient, addresses: list[str]) -> None:
    """Create the fleet with its identities, a pod per address, and the EndpointSlice that names them."""
    await install_crds(kube)
    fleet = await apply_fleet(kube, FLEET, NAMESPACE, FleetSpec(proxy_service="web", rollout=ROLLOUT))
    await ensure_identity(kube, fleet)
    endpoints = []
    for number, address in enumerate(addresses):
        metadata = {"name": f"kong-{number:03d}", "namespace": NAMESPACE, "labels": dict(fleet.labels)}
        spec = {"containers": [{"name": "proxy", "image": "kong:3.9"}]}
        pod = await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        target = {"kind": "Pod", "name": metadata["name"], "uid": pod["metadata"]["uid"]}
        conditions = {"ready": True, "serving": True, "terminating": False}
        endpoints.append({"addresses": [address], "conditions": conditions, "targetRef": target})
    labels = {"kubernetes.io/service-name": fleet.admin_service}
    metadata = {"name": "shop-admin", "namespace": NAMESPACE, "labels": labels}
    head = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
    ports = [{"name": "kong-admin-tls", "port": 8444, "protocol": "TCP"}]
    await kube.create(ENDPOINT_SLICES, {**head, "addressType": "IPv4", "ports": ports, "endpoints": endpoints})


async def _fill(kube: KubeClient) -> list[dict[str, Any]]:
    """Create the sources; returns the Ingresses."""
    for team in range(TEAMS):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"team-{team}"}}
        await kube.create(NAMESPACES, body)
    slots = asyncio.Semaphore(16)

    async def create(body: dict[str, Any]) -> dict[str, Any]:
        for name in ("uid", "resourceVersion", "generation", "creationTimestamp"):
            body["metadata"].pop(name, None)
        body.get("spec", {}).pop("clusterIP", None)
        body["metadata"].pop("annotations", None)  # they name plugins, whose CRD is not there
        async with slots:
            return await kube.create(RESOURCES[body["kind"]], body)

    made = await asyncio.gather(*(create(body) for body in make_objects(ROUTES) if body["kind"] in RESOURCES))
    return [body for body in made if body["kind"] == "Ingress"]


async def _mount(site: Site) -> Path:
    """Write the proxies' identity to files and return their directory."""
    fleet = await load_fleet(site.kube, FLEET, NAMESPACE)
    secret = await site.kube.get(SECRETS, fleet.proxy_secret, NAMESPACE)
    place = site.directory / "identity"
    place.mkdir(mode=0o700)
    for name, value in secret["data"].items():
        (place / name).touch(mode=0o600)
        (place / name).write_bytes(base64.b64decode(value))
    return place


async def sync_bare(site: Site, proxies: int) -> tuple[float, int]:
    """Sync as the flow does, without Prefect; returns the seconds after the claim, and the size in bytes."""
    async with await KubeClient.connect(site.api.kubeconfig) as kube:
        fleet = await load_fleet(kube, FLEET, NAMESPACE)
        async with claim_fleet(kube, fleet) as claim:
            started = time.perf_counter()
            fleet = await load_fleet(kube, FLEET, NAMESPACE)
            found = await discover_proxies(kube, fleet)
            async with open_gateways(kube, fleet) as gateways:
                sources = await gather_sources(kube)
                draft, rendered = compile_revision(fleet, sources)
                desired = Desired(draft, lambda: sources, "bench", rendered.problems, read_versions(sources))
                good = fleet.status.last_good_revision
                previous = await load_revision(kube, fleet, good) if good else None
                report = await sync_sources(
                    kube, fleet, gateways, desired, found,
                    previous=previous, superseded=claim.superseded, may_act=claim.may_act,
                )  # fmt: skip
                status = await summarise_fleet(kube, fleet, report.revision, setback=report.setback)
            took = time.perf_counter() - started
    if status.counts.synced != proxies:
        raise SystemExit(f"the bare engine: {status.counts}: {report.outcome.message}")
    return took, len(draft.content)


async def sync_flow(site: Site, server: PrefectServer, proxies: int) -> dict[str, float]:
    """Sync by the flow; returns the seconds of its tasks, of its run, and of its process."""
    started = time.perf_counter()
    result = await run_flow("config-sync", {"target": site.target.to_json(), "author": "bench"}, server=server)
    took = time.perf_counter() - started
    if result.value["synced"] != proxies:
        raise SystemExit(f"the flow: {result.value}")
    run = result.url.rpartition("/")[2]
    async with httpx.AsyncClient(base_url=server.url, timeout=30, trust_env=False) as http:
        async with asyncio.timeout(RECORDED_SECONDS):
            while not (spans := await _read_spans(http, run)):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.2)
    tasks, whole = spans
    return {"tasks": tasks, "run": whole, "process": took}


async def _read_spans(http: httpx.AsyncClient, run: str) -> tuple[float, float] | None:
    """Return the seconds from the first task to the last and of the run; None while they are not written down."""
    flow = (await http.get(f"/flow_runs/{run}")).json()
    words = {"flow_runs": {"id": {"any_": [run]}}}
    tasks = (await http.post("/task_runs/filter", json=words)).json()
    done = [task for task in tasks if task["end_time"]]
    if not flow["end_time"] or len(done) < len(tasks) or "summarise" not in {task["name"] for task in done}:
        return None
    first, last = min(_moment(t["start_time"]) for t in done), max(_moment(t["end_time"]) for t in done)
    return last - first, _moment(flow["end_time"]) - _moment(flow["start_time"])


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def measure_flow(directory: Path, proxies: int, rounds: int) -> dict[str, Any]:
    """Return the times of the engine and of the flow in turn, after one round of each to warm up."""
    home = directory / "prefect"
    os.environ["KONVERGE_PREFECT_HOME"] = str(home)
    times: dict[str, list[float]] = {"bare": [], "tasks": [], "run": [], "process": []}
    async with open_site(directory, proxies) as site:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = await start_server(home, port)
        try:
            for number in range(rounds + 1):
                await site.change()
                bare, size = await sync_bare(site, proxies)
                await site.change()
                found = {"bare": bare, **await sync_flow(site, server, proxies)}
                for name, took in found.items():
                    if number:
                        times[name].append(took)
        finally:
            await stop_server(home)
    ratio = statistics.median(flow / bare for flow, bare in zip(times["tasks"], times["bare"], strict=True))
    return {"proxies": proxies, "bytes": size, "seconds": times, "to_bare": ratio}
