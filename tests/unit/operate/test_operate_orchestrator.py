"""The Prefect server: found, started, never replaced where one was named, and no process left behind."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from konverge.errors import FinalError, Unavailable
from konverge.operate import orchestrator
from konverge.operate.orchestrator import (
    PrefectServer,
    client_environment,
    ensure_server,
    find_server,
    is_healthy,
    server_environment,
    start_server,
    stop_server,
)

IMITATION = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"true")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer.allow_reuse_address = False
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""
SILENT = "import time; time.sleep(60)"
"""What stands in for the server's process: "prefect" has to be in the command line, as it is of the real one."""


@pytest.fixture(autouse=True)
def no_configured_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("KONVERGE_PREFECT_HOME", str(tmp_path / "home"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
async def answering() -> AsyncIterator[str]:
    """A server that says it is healthy."""

    async def health(_: web.Request) -> web.Response:
        return web.json_response(True)

    app = web.Application()
    app.router.add_get("/api/health", health)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield f"http://127.0.0.1:{port}/api"
    await runner.cleanup()


def imitate(monkeypatch: pytest.MonkeyPatch, script: str) -> list[subprocess.Popen[bytes]]:
    """Let another program stand in for Prefect's server and return the processes that were started."""
    real, started = orchestrator.subprocess.Popen, []

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(real([sys.executable, "-c", script, "prefect", command[-1]], **options))
        return started[-1]

    monkeypatch.setattr(orchestrator.subprocess, "Popen", start)
    return started


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_text(home: Path, record: str) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "server.json").write_text(record)


def write_record(home: Path, url: str, pid: int) -> None:
    write_text(home, json.dumps({"url": url, "pid": pid}))


async def test_a_configured_server_that_answers_is_used(answering: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", answering)
    started = imitate(monkeypatch, SILENT)
    assert await ensure_server() == PrefectServer(answering)
    assert started == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/api", "http://[broken/api", "nonsense", "ftp://127.0.0.1/api"])
async def test_a_configured_server_that_is_dead_is_never_replaced(
    url: str, home: Path, answering: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", url)
    write_record(home, answering, 0)
    started = imitate(monkeypatch, SILENT)
    with pytest.raises(Unavailable) as caught:
        await ensure_server()
    assert caught.value.reason == "PrefectUnreachable"
    assert caught.value.hint == "reference/errors.md#prefect-unreachable"
    assert url in caught.value.message
    assert started == []


async def test_the_recorded_server_is_found_while_it_answers(home: Path, answering: str) -> None:
    assert await find_server() is None
    write_record(home, answering, 4)
    assert await find_server() == PrefectServer(answering, 4)


@pytest.mark.parametrize(
    "record", ["", "{", "[]", '{"url": 1, "pid": 2, "more": 3}', '{"url": "http://127.0.0.1:9/api"}']
)
async def test_a_stale_or_broken_record_is_no_server(home: Path, record: str) -> None:
    write_text(home, record)
    assert await find_server() is None
    assert await stop_server() is False


async def test_a_stale_record_is_replaced_by_a_new_server_which_can_be_stopped(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(home, "http://127.0.0.1:9/api", 2**22 - 1)
    imitate(monkeypatch, IMITATION)
    server = await ensure_server(port=free_port())
    assert await find_server() == server
    assert await is_healthy(server.url)
    assert await stop_server()
    assert await find_server() is None
    assert await stop_server() is False


async def test_a_process_under_a_reused_number_is_not_stopped(home: Path) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SILENT)
    try:
        write_record(home, "http://127.0.0.1:9/api", process.pid)
        assert await stop_server() is False
        assert process.returncode is None
    finally:
        process.kill()
        await process.wait()


async def test_a_taken_port_ends_in_one_message(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imitate(monkeypatch, IMITATION)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(FinalError, match=r"ended with code 1; see .*server\.log") as caught:
            await start_server(home, taken.getsockname()[1])
    assert caught.value.reason == "PrefectNotStarted"
    assert "Address already in use" in (home / "server.log").read_text()
    assert await find_server() is None


async def test_the_usual_port_is_left_to_who_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(orchestrator, "DEFAULT_PORT", taken.getsockname()[1])
        assert orchestrator._free_port() != orchestrator.DEFAULT_PORT


async def test_a_server_that_never_answers_is_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = imitate(monkeypatch, SILENT)
    monkeypatch.setattr(orchestrator, "START_TIMEOUT", 0.1)
    with pytest.raises(Unavailable) as caught:
        await start_server(home, free_port())
    assert caught.value.reason == "PrefectNotStarted"
    assert started[0].returncode == -signal.SIGTERM


async def test_a_start_that_is_interrupted_leaves_no_process(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = imitate(monkeypatch, SILENT)
    starting = asyncio.create_task(start_server(home, free_port()))
    async with asyncio.timeout(10):
        while not started:  # noqa: ASYNC110 - it is started in a thread
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert started[0].returncode == -signal.SIGTERM
    assert await find_server() is None


def test_the_environment_keeps_the_implicit_server_off(home: Path) -> None:
    server = PrefectServer("http://127.0.0.1:4200/api", 1)
    for found in (client_environment(server, home), server_environment(home, server.url)):
        assert found["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] == "false"
        assert found["PREFECT_API_URL"] == server.url
        assert found["PREFECT_HOME"] == str(home)
        assert found["DO_NOT_TRACK"] == "1"


def test_addresses_of_the_ui() -> None:
    server = PrefectServer("http://127.0.0.1:4200/api")
    assert server.ui == "http://127.0.0.1:4200"
    assert server.flow_run("abc") == "http://127.0.0.1:4200/runs/flow-run/abc"
