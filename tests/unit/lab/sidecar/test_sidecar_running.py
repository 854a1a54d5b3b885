"""The whole controller in one loop: an API server and a gateway that are only as real as it needs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from konverge.errors import Unavailable, UsageError
from konverge.kube.client import KubeClient
from konverge.lab.pod import PodEnvironment
from konverge.lab.sidecar.access import connect
from konverge.lab.sidecar.admin import ZEROS
from konverge.lab.sidecar.running import run_controller
from konverge.lab.sidecar.settings import SidecarSettings
from konverge.lab.sidecar.watching import WATCHED

HOSTS = PodEnvironment(ip="127.0.0.2", loopback="127.0.0.1")


@dataclass
class Api:
    """Lists and watches every kind; ``absent`` kinds are not served."""

    objects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    watches: set[str] = field(default_factory=set)
    writes: asyncio.Queue[tuple[str, str, Any]] = field(default_factory=asyncio.Queue)
    feeds: dict[str, asyncio.Queue[dict[str, Any]]] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        plural = request.path.rsplit("/", 1)[1]
        if request.method != "GET":
            self.writes.put_nowait((request.method, request.path, orjson.loads(await request.read())))
            return web.json_response({})
        if plural in self.absent:
            return web.json_response({"message": "not found"}, status=404)
        if "watch" in request.query:
            return await self._watch(request, plural)
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": self.objects.get(plural, [])})

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        self.watches.add(plural)
        feed = self.feeds.setdefault(plural, asyncio.Queue())
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(orjson.dumps(await feed.get()) + b"\n")


@dataclass
class Kong:
    """Stores what is posted."""

    hash: str = ZEROS
    posted: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)

    async def handle(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            self.hash = "a" * 32
            self.posted.put_nowait(orjson.loads(await request.read()))
            return web.json_response({}, status=201)
        if request.path == "/status":
            return web.json_response({"configuration_hash": self.hash})
        if request.path == "/":
            return web.json_response({"version": "3.9.1", "configuration": {"router_flavor": "traditional"}})
        return web.json_response({}, status=404)


@contextlib.asynccontextmanager
async def site(part: Api | Kong) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", part.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def ingress(host: str, version: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "a", "namespace": "n", "resourceVersion": version},
        "spec": {
            "ingressClassName": "kong",
            "rules": [
                {
                    "host": host,
                    "http": {
                        "paths": [
                            {
                                "path": "/",
                                "pathType": "Prefix",
                                "backend": {"service": {"name": "s", "port": {"number": 80}}},
                            }
                        ]
                    },
                }
            ],
        },
    }


def hosts_of(document: dict[str, Any]) -> list[str]:
    return [host for service in document["services"] for route in service["routes"] for host in route["hosts"]]


def settings_for(kong: str, **changes: Any) -> SidecarSettings:
    return SidecarSettings(
        admin_url=kong,
        sync_seconds=0.01,
        cache_sync=0.0,
        publish_service="kong/proxy",
        health_port=0,
        metrics_port=0,
        pod_name="edge-1",
        pod_namespace="kong",
        **changes,
    )


SERVICE = {
    "metadata": {"name": "proxy", "namespace": "kong", "resourceVersion": "1"},
    "spec": {"type": "LoadBalancer"},
    "status": {"loadBalancer": {"ingress": [{"ip": "127.30.8.2"}]}},
}


async def test_it_watches_everything_configures_the_proxy_and_publishes_its_address() -> None:
    api = Api(objects={"ingresses": [ingress("a.test", "1")], "services": [SERVICE]}, absent=frozenset({"gateways"}))
    kong, stop = Kong(), asyncio.Event()
    async with site(api) as api_url, site(kong) as kong_url, KubeClient(Configuration(host=api_url)) as kube:
        task = asyncio.create_task(run_controller(kube, settings_for(kong_url), HOSTS, stop))
        async with asyncio.timeout(10):
            assert hosts_of(await kong.posted.get()) == ["a.test"]
            status = await next_write(api, "/ingresses/a/status")
            assert status["status"] == {"loadBalancer": {"ingress": [{"ip": "127.30.8.2"}]}}
            api.feeds["ingresses"].put_nowait({"type": "MODIFIED", "object": ingress("b.test", "2")})
            assert hosts_of(await kong.posted.get()) == ["b.test"]
            assert (await next_write(api, "/events"))["reason"]
        assert api.watches == {resource.plural for resource in WATCHED} - {"gateways"}
        stop.set()
        await task


async def next_write(api: Api, ending: str) -> Any:
    while True:
        _, path, body = await api.writes.get()
        if path.endswith(ending):
            return body


async def test_a_proxy_that_never_comes_up_ends_it() -> None:
    async with site(Api()) as api_url, KubeClient(Configuration(host=api_url)) as kube:
        settings = settings_for("http://127.0.0.1:1", admin_tries=2, admin_delay=0.0)
        with pytest.raises(ExceptionGroup) as caught:
            await run_controller(kube, settings, HOSTS, asyncio.Event())
        assert isinstance(caught.value.exceptions[0], Unavailable)


async def test_a_pod_uses_the_account_it_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("t0ken")
    (tmp_path / "ca.crt").write_text("pem")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.30.16.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    pod = PodEnvironment(
        ip="127.30.64.2",
        namespace="kong",
        mounts={"/var/run/secrets/kubernetes.io/serviceaccount": str(tmp_path)},
    )
    # The loader reads its environment when it is made.
    client = await connect(pod)
    assert client.server == "https://127.30.16.1:443"
    assert client.namespace == "kong"
    assert (await client.headers())["authorization"] == "bearer t0ken"


async def test_a_pod_without_its_account_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="serviceaccount"):
        await connect(PodEnvironment(mounts={"/var/run/secrets/kubernetes.io/serviceaccount": str(tmp_path)}))


async def test_the_listeners_live_as_long_as_it_does() -> None:
    kong, stop = Kong(), asyncio.Event()
    with socket.socket() as free:
        free.bind((HOSTS.ip, 0))
        port = free.getsockname()[1]
    async with (
        site(Api()) as api_url,
        site(kong) as kong_url,
        KubeClient(Configuration(host=api_url)) as kube,
        aiohttp.ClientSession() as session,
    ):
        settings = dataclasses.replace(settings_for(kong_url), health_port=port)
        task = asyncio.create_task(run_controller(kube, settings, HOSTS, stop))
        async with asyncio.timeout(10):
            await kong.posted.get()
        for host in (HOSTS.ip, HOSTS.loopback):
            async with session.get(f"http://{host}:{port}/healthz") as response:
                assert response.status == 200
        stop.set()
        await task
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://{HOSTS.ip}:{port}/healthz")
