"""The controller as a process on an API server: alive without a fleet, one acts at a time, ends when told to."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from konverge.cli.demo.staging import install_crds
from konverge.kube.client import KubeClient
from konverge.kube.resources import CONFIG_REVISIONS, INGRESSES, LEASES, NAMESPACES, PROXY_FLEETS, SERVICES, Object
from konverge.model.fleet import FleetSpec
from konverge.operate.fleets import apply_fleet, find_fleet, load_fleet

pytestmark = [pytest.mark.lab, pytest.mark.slow]


class Api:
    """A stand-in API server that can be stopped and started again on the same port and the same data."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        listen = f"127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "konverge.lab.apiserver", "--listen", listen, "--dir", str(self.directory)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.kubeconfig = str(json.loads(self.process.stdout.readline())["kubeconfig"])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    server = Api(tmp_path_factory.mktemp("api"))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
async def kube(api: Api) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(api.kubeconfig) as client:
        await install_crds(client)
        yield client


class Controller:
    """A controller and its endpoints."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, http: httpx.AsyncClient) -> None:
        self.process, self._http = process, http
        self._url = f"http://127.0.0.1:{port}"

    async def answers(self, path: str) -> int:
        try:
            return (await self._http.get(self._url + path)).status_code
        except httpx.TransportError:
            return 0

    async def metric(self, name: str) -> float:
        text = (await self._http.get(self._url + "/metrics")).text
        found = re.search(rf"^konverge_controller_{name} (\S+)$", text, re.MULTILINE)
        assert found, text
        return float(found.group(1))

    async def is_ready(self) -> bool:
        return await self.answers("/readyz") == 200

    async def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 15)


@asynccontextmanager
async def controller(api: Api, fleet: str, log: Path, *words: str) -> AsyncIterator[Controller]:
    """Run a controller on a free port, and end it with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from konverge.cli.main import run; run()", "controller", "--fleet", fleet]
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(*command, "--listen", f"127.0.0.1:{port}", "--kubeconfig", api.kubeconfig, *words),
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
        running = Controller(process, port, http)
        try:
            await until(lambda: alive(running))
            yield running
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def alive(running: Controller) -> bool:
    assert running.process.returncode is None, "the controller ended"
    return await running.answers("/healthz") == 200


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait for something in another process that tells nobody."""
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def revision_of(kube: KubeClient, fleet: str) -> int:
    body = await find_fleet(kube, fleet, "default")
    return (await load_fleet(kube, fleet, "default")).status.current_revision if body else 0


def backend(name: str) -> list[tuple[object, Object]]:
    metadata = {"name": name, "namespace": "shop"}
    service = {"metadata": metadata, "spec": {"ports": [{"name": "http", "port": 80}], "selector": {"a": name}}}
    to = {"service": {"name": name, "port": {"number": 80}}}
    rule = {"host": f"{name}.test", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": to}]}}
    return [
        (SERVICES, {"apiVersion": "v1", "kind": "Service", **service}),
        (
            INGRESSES,
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "Ingress",
                "metadata": metadata,
                "spec": {"ingressClassName": "kong", "rules": [rule]},
            },
        ),
    ]


async def add_backend(kube: KubeClient, name: str) -> None:
    if await kube.find(NAMESPACES, "shop") is None:
        await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    for resource, body in backend(name):
        await kube.create(resource, body)  # type: ignore[arg-type]


async def test_it_is_alive_without_a_fleet_and_compiles_when_there_is_one(
    api: Api, kube: KubeClient, tmp_path: Path
) -> None:
    async with controller(api, "late", tmp_path / "log") as running:
        assert not await running.is_ready()
        await apply_fleet(kube, "late", "default", FleetSpec(proxy_service="s"))
        await until(running.is_ready)
        await until(lambda: has_revision(kube, "late", 1))
        await add_backend(kube, "late")
        await until(lambda: has_revision(kube, "late", 2))
        assert await running.metric("revision") >= 2
        assert await running.end() == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


async def has_revision(kube: KubeClient, fleet: str, number: int) -> bool:
    return await revision_of(kube, fleet) >= number


async def test_a_fleet_file_is_applied(api: Api, kube: KubeClient, tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text("metadata: {name: declared}\nspec: {proxyService: web, replicas: 7}\n")
    async with controller(api, "declared", tmp_path / "log", "--fleet-file", str(path)) as running:
        await until(running.is_ready)
        assert (await load_fleet(kube, "declared", "default")).spec.replicas == 7
        assert await running.end(signal.SIGINT) == 0


async def test_two_controllers_make_one_revision_and_the_second_takes_over(
    api: Api, kube: KubeClient, tmp_path: Path
) -> None:
    await apply_fleet(kube, "pair", "default", FleetSpec(proxy_service="s"))
    async with controller(api, "pair", tmp_path / "a") as first:
        await until(lambda: has_revision(kube, "pair", 1))
        async with controller(api, "pair", tmp_path / "b") as second:
            await until(second.is_ready)
            holder = (await kube.get(LEASES, "pair-controller"))["spec"]["holderIdentity"]
            assert await second.metric("syncs_total") == 0
            assert await first.end() == 0
            await add_backend(kube, "pair")
            await until(lambda: has_revision(kube, "pair", 2))
            assert (await kube.get(LEASES, "pair-controller"))["spec"]["holderIdentity"] != holder
    revisions = await kube.list_all(CONFIG_REVISIONS, "default", labels="konverge.dev/fleet=pair")
    assert len({r["spec"]["hash"] for r in revisions}) == len(revisions)


async def test_a_restart_of_the_api_server_is_survived(api: Api, kube: KubeClient, tmp_path: Path) -> None:
    await apply_fleet(kube, "survivor", "default", FleetSpec(proxy_service="s"))
    async with controller(api, "survivor", tmp_path / "log") as running:
        await until(lambda: has_revision(kube, "survivor", 1))
        requests = await running.metric("kubernetes_requests_total")
        await asyncio.to_thread(api.stop)
        assert await running.answers("/healthz") == 200
        await asyncio.to_thread(api.start)
        async with await KubeClient.connect(api.kubeconfig) as fresh:
            if await fresh.find(PROXY_FLEETS, "survivor", "default") is None:
                await install_crds(fresh)  # where its data lived in memory, a restart is a new cluster
                await apply_fleet(fresh, "survivor", "default", FleetSpec(proxy_service="s"))
            wanted = await revision_of(fresh, "survivor") + 1
            await add_backend(fresh, "survivor")
            await until(lambda: has_revision(fresh, "survivor", wanted), 60)
        sent = await running.metric("kubernetes_requests_total") - requests
        assert sent < 500, "no storm"
        assert running.process.returncode is None
        assert await running.end() == 0
