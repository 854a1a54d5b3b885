from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from konverge.lab.kubelet.handlers import Target, act
from konverge.lab.kubelet.probing import Prober
from konverge.lab.kubelet.states import ContainerRecord


class App:
    """An HTTP server whose answer the test sets."""

    def __init__(self) -> None:
        self.status = 200
        self.calls: list[str] = []
        self.headers: dict[str, str] = {}
        self.called = asyncio.Event()
        self.port = 0

    async def handle(self, request: web.Request) -> web.Response:
        self.calls.append(request.path)
        self.headers = dict(request.headers)
        self.called.set()
        if request.path == "/slow":
            await asyncio.sleep(30)
        if request.path == "/moved":
            return web.Response(status=302, headers={"Location": "/target"})
        return web.Response(status=self.status)


@pytest.fixture
async def app() -> AsyncIterator[App]:
    found = App()
    application = web.Application()
    application.router.add_get("/{path:.*}", found.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


@pytest.fixture
async def target(app: App) -> AsyncIterator[Target]:
    async def run(command: tuple[str, ...], timeout: float | None) -> tuple[int, bytes]:
        if command[0] == "hang":
            await asyncio.sleep(30)
        return int(command[1]), b"said"

    connector = aiohttp.TCPConnector(ssl=False, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as http:
        yield Target("127.0.0.1", {"web": app.port}, http, run)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ({"httpGet": {"port": "web", "path": "ok"}}, (True, "")),
        ({"httpGet": {"port": "web", "path": "/moved"}}, (True, "")),
        ({"httpGet": {"port": "nope"}}, (False, "The container has no port named 'nope'.")),
        ({"httpGet": {"port": 9}}, (False, "connect: connection refused")),
        ({"tcpSocket": {"port": "web"}}, (True, "")),
        ({"tcpSocket": {"port": 9}}, (False, "connect: connection refused")),
        ({"exec": {"command": ["x", "0"]}}, (True, "said")),
        ({"exec": {"command": ["x", "4"]}}, (False, "said")),
        ({"exec": {"command": ["hang"]}}, (False, 'command timed out: "hang" timed out after 0.2s')),
        ({"httpGet": {"port": "web", "path": "/slow"}}, (False, "context deadline exceeded after 0.2s")),
        ({"sleep": {"seconds": 0}}, (True, "")),
    ],
)
async def test_actions(target: Target, action: dict[str, Any], expected: tuple[bool, str]) -> None:
    assert await act(action, target, 0.2) == expected


async def test_a_probe_that_the_lab_does_not_know_fails_and_says_so(target: Target) -> None:
    passed, message = await act({"grpc": {"port": 1}}, target, 1)
    assert not passed
    assert "exec, httpGet, tcpSocket and sleep" in message


@pytest.mark.parametrize(("status", "passed"), [(200, True), (399, True), (400, False), (503, False)])
async def test_statuses_below_400_pass(app: App, target: Target, status: int, passed: bool) -> None:
    app.status = status
    header = {"name": "X-Probe", "value": "1"}
    result, message = await act({"httpGet": {"port": app.port, "httpHeaders": [header]}}, target, 1)
    assert result is passed
    assert passed or message == f"HTTP probe failed with statuscode: {status}"
    assert app.headers["X-Probe"] == "1"
    assert app.headers["User-Agent"].startswith("kube-probe/")


class Watched:
    """A container record with a prober, and what it reported."""

    def __init__(self, target: Target, *, started: bool, **probes: dict[str, Any]) -> None:
        self.record = ContainerRecord("main", "lab/host")
        self.record.run("id", "now", started=started, ready="readinessProbe" not in probes)
        self.changes: asyncio.Queue[tuple[bool, bool]] = asyncio.Queue()
        self.failures: list[tuple[str, str]] = []
        self.unhealthy: asyncio.Queue[str] = asyncio.Queue()
        self.prober = Prober(
            probes,
            self.record,
            target,
            changed=lambda: self.changes.put_nowait((self.record.started, self.record.ready)),
            failed=lambda kind, message: self.failures.append((kind, message)),
            unhealthy=self.unhealthy.put_nowait,
        )
        self.task = asyncio.create_task(self.prober.run())

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def probe(app: App, **more: Any) -> dict[str, Any]:
    return {"httpGet": {"port": app.port, "path": "/"}, "periodSeconds": 0.03, **more}


async def test_readiness_follows_the_probe_with_its_thresholds(app: App, target: Target) -> None:
    watched = Watched(target, started=True, readinessProbe=probe(app, failureThreshold=3))
    assert await asyncio.wait_for(watched.changes.get(), 5) == (True, True)
    app.calls.clear()
    app.status = 500
    assert await asyncio.wait_for(watched.changes.get(), 5) == (True, False)
    assert len(watched.failures) >= 3
    app.status = 200
    assert await asyncio.wait_for(watched.changes.get(), 5) == (True, True)
    await watched.close()


async def test_liveness_and_readiness_wait_for_the_startup_probe(app: App, target: Target) -> None:
    app.status = 500
    startup = {"httpGet": {"port": app.port, "path": "/startup"}, "periodSeconds": 0.03, "failureThreshold": 1000}
    liveness = {"httpGet": {"port": app.port, "path": "/live"}, "periodSeconds": 0.03, "failureThreshold": 2}
    readiness = {"httpGet": {"port": app.port, "path": "/ready"}, "periodSeconds": 60}
    watched = Watched(target, started=False, startupProbe=startup, livenessProbe=liveness, readinessProbe=readiness)
    for _ in range(3):
        app.called.clear()
        await asyncio.wait_for(app.called.wait(), 5)
    assert set(app.calls) == {"/startup"}
    app.status = 200
    assert await asyncio.wait_for(watched.changes.get(), 5) == (True, False)
    # Readiness is asked at once, not after its period of a minute.
    assert await asyncio.wait_for(watched.changes.get(), 5) == (True, True)
    app.status = 500
    assert await asyncio.wait_for(watched.unhealthy.get(), 5) == "liveness"
    await watched.close()


async def test_a_startup_probe_that_never_passes_is_unhealthy(app: App, target: Target) -> None:
    app.status = 500
    watched = Watched(target, started=False, startupProbe=probe(app, failureThreshold=2))
    assert await asyncio.wait_for(watched.unhealthy.get(), 5) == "startup"
    assert [kind for kind, _ in watched.failures] == ["startupProbe", "startupProbe"]
    assert not watched.record.started
    await watched.close()


async def test_the_initial_delay_is_kept(app: App, target: Target) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    watched = Watched(target, started=True, readinessProbe=probe(app, initialDelaySeconds=0.3))
    await asyncio.wait_for(watched.changes.get(), 5)
    assert loop.time() - began >= 0.29
    await watched.close()


async def test_terminating_ends_liveness_but_not_readiness(app: App, target: Target) -> None:
    watched = Watched(
        target,
        started=True,
        livenessProbe=probe(app, failureThreshold=1),
        readinessProbe=probe(app, failureThreshold=1),
    )
    await asyncio.wait_for(watched.changes.get(), 5)
    watched.prober.stop_restarting()
    app.status = 500
    assert await asyncio.wait_for(watched.changes.get(), 5) == (True, False)
    assert watched.unhealthy.empty()
    await watched.close()
