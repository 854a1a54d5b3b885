"""A town: an API server, stand-in gateways and controllers as processes; the test plays the kubelet."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from konverge.cli.demo.staging import install_crds
from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.resources import (
    CONFIG_REVISIONS,
    ENDPOINT_SLICES,
    INGRESSES,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICES,
    Object,
)
from konverge.lab.addressing import Claim, claim_number
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import CONFIGURED_GATE, ZERO_HASH
from konverge.operate.fleets import apply_fleet
from konverge.operate.identities import ensure_identity

FLEET, NAMESPACE = "shop", "default"
STARTING = 60.0


async def until(check: Callable[[], Awaitable[Any]], what: str, seconds: float = STARTING) -> Any:
    """Wait for something in other processes that tell nobody; returns what the check returned."""
    try:
        async with asyncio.timeout(seconds):
            while not (found := await check()):  # noqa: ASYNC110 - other processes
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"after {seconds:.0f} s: {what}") from None
    return found


class Process:
    """A Python process of ours with a log; it is killed with the town."""

    def __init__(self, log: Path, *words: str) -> None:
        self.log = log
        self._words = words
        self.running: asyncio.subprocess.Process | None = None

    async def start(self, **pipes: Any) -> None:
        with self.log.open("ab") as output:
            self.running = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._words,
                stdout=pipes.get("stdout", output),
                stderr=output,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                cwd=pipes.get("cwd"),
            )

    @property
    def alive(self) -> bool:
        return self.running is not None and self.running.returncode is None

    async def end(self, number: int = signal.SIGKILL) -> int:
        if not self.alive:
            return 0
        assert self.running is not None
        self.running.send_signal(number)
        return await asyncio.wait_for(self.running.wait(), 60)


class Api:
    """The stand-in API server; it comes back on the same port with the same data."""

    def __init__(self, directory: Path, number: int) -> None:
        self.url = f"https://127.{number}.0.1:6443"
        words = ["-m", "konverge.lab.apiserver", "--listen", f"127.{number}.0.1:6443", "--dir", str(directory)]
        loopback = ["--allow-loopback-endpoints", "--loopback-range", f"127.{number}.0.0/16"]
        self.process = Process(directory / "api.log", *words, *loopback)
        self.kubeconfig = ""

    async def start(self) -> None:
        await self.process.start(stdout=asyncio.subprocess.PIPE)
        assert self.process.running is not None
        assert self.process.running.stdout is not None
        line = await asyncio.wait_for(self.process.running.stdout.readline(), STARTING)
        self.kubeconfig = str(json.loads(line)["kubeconfig"])

    async def restart(self, away: float) -> None:
        """End it, and start it again after some seconds."""
        await self.process.end(signal.SIGTERM)
        await asyncio.sleep(away)
        await self.start()


class Gateway:
    """A stand-in gateway on an address of its own, with the fleet's identity."""

    def __init__(self, directory: Path, name: str, ip: str) -> None:
        self.name, self.ip, self.directory = name, ip, directory / name
        self.directory.mkdir(mode=0o700)
        listen = {"status": 8100, "proxy": 8000, "admin-tls": 8444, "control": 8999}
        files = {"cert": "tls.crt", "key": "tls.key", "client-ca": "client-ca.pem"}
        self.process = Process(
            self.directory / "log",
            *("-m", "konverge.lab.kong", "--router-flavor", "traditional"),
            *(f"--{name}={ip}:{port}" for name, port in listen.items()),
            *(f"--{flag}={self.directory / file}" for flag, file in files.items()),
            f"--prefix={self.directory / 'prefix'}",
        )
        self.http = httpx.AsyncClient(base_url=f"http://{ip}:8999", timeout=10, trust_env=False)

    def mount(self, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            path = self.directory / name
            path.touch(mode=0o600)
            path.write_bytes(content)

    async def hash(self) -> str:
        """What it has loaded; "" while it does not answer."""
        try:
            return str((await self.http.get("/state")).json()["hash"])
        except httpx.TransportError:
            return ""

    async def close(self) -> None:
        await self.http.aclose()
        await self.process.end()


class Controller:
    """One controller process and its endpoints."""

    def __init__(self, directory: Path, name: str, kubeconfig: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.name = name
        self.process = Process(
            directory / f"{name}.log",
            *("-c", "from konverge.cli.main import run; run()", "controller", "--fleet", FLEET, "-n", NAMESPACE),
            *("--listen", f"127.0.0.1:{self.port}", "--kubeconfig", kubeconfig, "--log-format", "json"),
        )
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=10, trust_env=False)

    async def metric(self, name: str) -> float:
        """A counter of it; 0 while it does not answer."""
        try:
            text = (await self.http.get("/metrics")).text
        except httpx.TransportError:
            return 0.0
        found = re.search(rf"^konverge_controller_{name} (\S+)$", text, re.MULTILINE)
        assert found, text
        return float(found.group(1))

    async def is_ready(self) -> bool:
        try:
            return (await self.http.get("/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def close(self) -> None:
        await self.http.aclose()
        await self.process.end()


class Town:
    """Everything together, and a watcher that writes down which revisions each gateway had, in order."""

    def __init__(self, directory: Path, claim: Claim) -> None:
        self.directory = directory
        self._claim = claim
        self.api = Api(directory, claim.number)
        self.gateways: list[Gateway] = []
        self.controllers: list[Controller] = []
        self.seen: dict[str, list[str]] = {}
        self.leaders: list[int] = []
        """How many controllers said that they lead, sample by sample."""
        self._tasks: list[asyncio.Task[None]] = []
        self._slice: Object | None = None

    async def open(self, gateways: int, **spec: Any) -> None:
        await self.api.start()
        self.kube = await KubeClient.connect(self.api.kubeconfig)
        await install_crds(self.kube)
        self.fleet: Fleet = await apply_fleet(
            self.kube, FLEET, NAMESPACE, FleetSpec(proxy_service="web", replicas=gateways, **spec)
        )
        await ensure_identity(self.kube, self.fleet)
        await self.kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        await asyncio.gather(*(self.add_gateway() for _ in range(gateways)))
        self._tasks += [asyncio.create_task(self._play_kubelet()), asyncio.create_task(self._watch())]

    async def add_gateway(self) -> Gateway:
        number = len(self.gateways)
        gateway = Gateway(self.directory, f"kong-{number}", f"127.{self._claim.number}.64.{number + 2}")
        self.gateways.append(gateway)
        await self.introduce(gateway)
        await gateway.process.start()
        return gateway

    async def introduce(self, gateway: Gateway) -> None:
        """Give a gateway its identity and a pod."""
        secret = await self.kube.get(SECRETS, self.fleet.proxy_secret, NAMESPACE)
        gateway.mount({name: base64.b64decode(value) for name, value in secret["data"].items()})
        await self.kube.create(PODS, _pod(gateway, self.fleet))

    async def add_controller(self) -> Controller:
        controller = Controller(self.directory, f"controller-{len(self.controllers)}", self.api.kubeconfig)
        self.controllers.append(controller)
        await controller.process.start()
        return controller

    async def change(self, name: str) -> None:
        """Add a Service and an Ingress, or change their annotation."""
        for resource, body in backend(name):
            await self.kube.apply(resource, body)

    async def fault(self, **fault: Any) -> None:
        await self.kube.request("POST", "/lab/faults", body=fault)

    async def calm(self) -> None:
        """Take every fault away."""

        async def done() -> bool:
            try:
                await self.kube.request("DELETE", "/lab/faults")
            except KonvergeError:
                return False
            return True

        await until(done, "the API server answers")

    async def numbers(self) -> dict[str, int]:
        """Hash to number of every revision."""
        items = await self.kube.list_all(CONFIG_REVISIONS, NAMESPACE)
        return {ZERO_HASH: 0} | {item["spec"]["hash"]: item["spec"]["number"] for item in items}

    async def converge(self, name: str, seconds: float = STARTING) -> float:
        """Wait until every gateway routes a backend and is in traffic; returns the seconds that took."""
        started = time.monotonic()
        await until(lambda: self._routes(name), f"every gateway routes {name}", seconds)
        return time.monotonic() - started

    async def _routes(self, name: str) -> bool:
        for gateway in self.gateways:
            if not gateway.process.alive:
                continue
            try:
                async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
                    answer = await http.get(f"http://{gateway.ip}:8000/", headers={"Host": f"{name}.test"})
            except httpx.TransportError:
                return False
            if answer.status_code == 404:
                return False
        return self._slice is not None and all(e["conditions"]["serving"] for e in self._slice["endpoints"])

    async def serves(self, gateway: Gateway) -> bool:
        """Whether a gateway is in traffic."""
        pod = await self.kube.get(PODS, gateway.name, NAMESPACE)
        conditions = (pod.get("status") or {}).get("conditions") or ()
        return any((c["type"], c["status"]) == (CONFIGURED_GATE, "True") for c in conditions)

    async def leader(self) -> Controller | None:
        for controller in self.controllers:
            if controller.process.alive and await controller.metric("leading"):
                return controller
        return None

    async def check_order(self) -> None:
        """No gateway ever went back to an older revision, and nobody saw two leaders."""
        numbers = await self.numbers()
        for name, hashes in self.seen.items():
            steps = [numbers.get(found, -1) for found in hashes]
            assert -1 not in steps, f"{name} had a configuration that is no revision: {steps}"
            assert steps == sorted(steps), f"{name} went back: {steps}"
        assert max(self.leaders, default=0) <= 1, "two controllers led at once"

    async def _watch(self) -> None:
        while True:
            for gateway in self.gateways:
                found, told = await gateway.hash(), self.seen.setdefault(gateway.name, [])
                if found and (not told or told[-1] != found):
                    told.append(found)
            alive = [controller for controller in self.controllers if controller.process.alive]
            self.leaders.append(int(sum(await asyncio.gather(*(one.metric("leading") for one in alive)))))
            await asyncio.sleep(0.05)

    async def _play_kubelet(self) -> None:
        """Say who is ready: whoever runs and has its gate open."""
        while True:
            with contextlib.suppress(KonvergeError):
                await self._tell_readiness()
            await asyncio.sleep(0.1)

    async def _tell_readiness(self) -> None:
        pods = {pod["metadata"]["name"]: pod for pod in await self.kube.list_all(PODS, NAMESPACE)}
        endpoints = []
        for gateway in self.gateways:
            pod = pods.get(gateway.name)
            if pod is None:
                continue
            gate = {c["type"]: c["status"] for c in (pod.get("status") or {}).get("conditions") or ()}
            ready = gateway.process.alive and gate.get(CONFIGURED_GATE) == "True"
            endpoints.append(
                {
                    "addresses": [gateway.ip],
                    "conditions": {"ready": True, "serving": ready, "terminating": False},
                    "targetRef": {"kind": "Pod", "name": gateway.name, "uid": pod["metadata"]["uid"]},
                }
            )
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "shop-admin",
                "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": self.fleet.admin_service},
            },
            "addressType": "IPv4",
            "ports": [{"name": "kong-admin-tls", "port": 8444, "protocol": "TCP"}],
            "endpoints": endpoints,
        }
        if body != self._slice:
            await self.kube.apply(ENDPOINT_SLICES, body)
            self._slice = body

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in (*self.controllers, *self.gateways)))
        if hasattr(self, "kube"):
            await self.kube.close()
        await self.api.process.end()
        self._claim.release()


def _pod(gateway: Gateway, fleet: Fleet) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": gateway.name, "namespace": NAMESPACE, "labels": dict(fleet.labels)},
        "spec": {
            "containers": [{"name": "proxy", "image": "kong:3.9"}],
            "readinessGates": [{"conditionType": CONFIGURED_GATE}],
        },
    }


def backend(name: str) -> list[tuple[Any, Object]]:
    """A Service and an Ingress of the host NAME.test."""
    metadata = {"name": name, "namespace": "shop"}
    service = {"metadata": metadata, "spec": {"ports": [{"name": "http", "port": 80}], "selector": {"a": name}}}
    to = {"service": {"name": name, "port": {"number": 80}}}
    rule = {"host": f"{name}.test", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": to}]}}
    spec = {"ingressClassName": "kong", "rules": [rule]}
    return [
        (SERVICES, {"apiVersion": "v1", "kind": "Service", **service}),
        (INGRESSES, {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}),
    ]


@contextlib.asynccontextmanager
async def open_town(directory: Path, gateways: int, **spec: Any) -> AsyncIterator[Town]:
    """Open a town with that many gateways; everything in it ends with the block."""
    town = Town(directory, claim_number(directory / "claims"))
    try:
        await town.open(gateways, **spec)
        yield town
    finally:
        await town.close()
