"""The load generator as a process against the echo application as a process: everything over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import orjson
import pytest

from konverge.errors import Unavailable, UsageError
from konverge.lab.load import LoadPlan, LoadProcess, LoadReport, TrafficClass
from konverge.lab.load.report import Counts

pytestmark = pytest.mark.lab


@contextlib.asynccontextmanager
async def echo_process(port: int, grace: float = 5.0) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "konverge.lab.echo",
        env={**os.environ, "PORT": str(port), "ECHO_GRACE_SECONDS": str(grace), "KONVERGE_LAB_POD_NAME": "echo-1"},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(20):
            while b"listens" not in await process.stderr.readline():
                pass
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def plan_for(port: int) -> LoadPlan:
    def item(name: str, kind: str, **more: object) -> TrafficClass:
        path = {"stream": "/stream", "websocket": "/ws"}.get(kind, "/")
        method = "POST" if kind == "body" else "GET"
        target = {"name": name, "path": path, "method": method, "credentials": {"apikey": "sesame"}}
        return TrafficClass.model_validate({"name": name, "kind": kind, "targets": [target], **more})

    classes = [
        item("kept", "keepalive", share=5, connections=4),
        item("fresh", "fresh", share=2),
        item("bodies", "body", share=3, connections=2, body_bytes=[10, 100_000]),
        item("streams", "stream", sessions=2, seconds=0.5, interval=0.05),
        item("sockets", "websocket", sessions=2, seconds=0.5, interval=0.05),
    ]
    return LoadPlan(base_url=f"http://127.0.0.1:{port}", rate=100, classes=classes, timeout=5)


async def wait_until(load: LoadProcess, reached: Callable[[Counts], bool]) -> None:
    async with asyncio.timeout(20):
        while not reached((await load.snapshot()).requests):  # noqa: ASYNC110 - the counts are another process's
            await asyncio.sleep(0.05)


async def count_to(load: LoadProcess, wanted: int) -> None:
    await wait_until(load, lambda counts: counts.total >= wanted)


async def test_a_healthy_application_gives_a_clean_report(port: int) -> None:
    async with echo_process(port) as echo, LoadProcess(plan_for(port)) as load:
        await count_to(load, 60)
        await load.mark("during")
        await count_to(load, 120)
        report = await load.stop()
        echo.terminate()
        assert await echo.wait() == 0
    assert report.clean, report.failures[:3]
    assert set(report.phases) == {"before", "during"}
    assert all(item.total for item in report.requests.by_class.values())
    assert report.messages.echoed > 0
    assert report.lines.received > 0
    assert not report.schedule.fell_behind


async def test_an_application_that_leaves_is_seen_as_it_is(port: int) -> None:
    async with echo_process(port) as echo, LoadProcess(plan_for(port)) as load:
        await count_to(load, 40)
        echo.terminate()
        assert await echo.wait() == 0
        await wait_until(load, lambda counts: counts.by_kind.get("connect_refused", 0) >= 20)
        report = await load.stop()
    # It says goodbye to sessions and answers what it has begun; afterwards nobody listens.
    assert report.requests.by_class["sockets"].closed_gracefully >= 1
    assert report.requests.by_class["streams"].closed_gracefully >= 1
    assert report.requests.by_kind["connect_refused"] >= 20
    # What waited in the accept queue when the listener closed is reset by the kernel.
    assert set(report.requests.by_kind) <= {"connect_refused", "eof_before_response", "reset"}


async def test_an_application_that_is_killed_breaks_its_sessions(port: int) -> None:
    async with echo_process(port) as echo, LoadProcess(plan_for(port)) as load:
        await count_to(load, 40)
        echo.send_signal(signal.SIGKILL)
        await echo.wait()
        await wait_until(load, lambda counts: counts.failed >= 20)
        report = await load.stop()
    assert report.requests.by_class["sockets"].by_kind["websocket_closed"] >= 1
    assert report.requests.by_class["streams"].by_kind["stream_cut"] >= 1
    assert report.messages.sessions_broken >= 1


def check_privacy(directory: Path, process: Path) -> None:
    plan = next(directory.glob("*/plan.json"))
    assert stat.S_IMODE(plan.stat().st_mode) == 0o600
    assert b"sesame" not in (process / "cmdline").read_bytes()


def check_absence(directory: Path, process: Path) -> None:
    assert not list(directory.iterdir())
    assert not process.exists()


async def test_the_process_ends_with_its_owner_and_leaves_no_plan_behind(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    load = LoadProcess(plan_for(port))
    await load.start()
    assert load._process is not None
    process = Path(f"/proc/{load._process.pid}")
    check_privacy(tmp_path, process)
    await load.kill()
    check_absence(tmp_path, process)
    with pytest.raises(Unavailable, match="not running"):
        await load.snapshot()


async def test_a_process_that_dies_is_told(port: int) -> None:
    load = LoadProcess(plan_for(port))
    await load.start()
    assert load._process is not None
    load._process.kill()
    with pytest.raises(Unavailable, match="ended by itself"):
        await load.stop()


async def test_a_phase_needs_a_name(port: int) -> None:
    async with LoadProcess(plan_for(port)) as load:
        with pytest.raises(UsageError, match="name"):
            await load.mark(" ")


async def run_module(*arguments: str) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "konverge.lab.load", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out


async def test_the_module_runs_a_plan_and_takes_orders_from_a_named_pipe(port: int, tmp_path: Path) -> None:
    plan, report, pipe = tmp_path / "plan.json", tmp_path / "report.json", tmp_path / "control"
    plan.write_bytes(plan_for(port).to_bytes())
    async with echo_process(port):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "konverge.lab.load", "--plan", str(plan), "--report", str(report),
            "--control", str(pipe), stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert orjson.loads(await process.stdout.readline())["event"] == "started"
        for words in ("mark during\n", "nonsense\n", "snapshot\n", "stop\n"):
            # A writer that comes and goes does not end the run.
            await asyncio.to_thread(pipe.write_text, words)
        events = [orjson.loads(line) async for line in process.stdout]
        assert await process.wait() == 0
    assert [event["event"] for event in events] == ["error", "snapshot", "report"]
    written = LoadReport.model_validate_json(report.read_bytes())
    assert set(written.phases) == {"before", "during"}


async def test_the_module_refuses_a_plan_that_is_off(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"base_url": "x"}')
    code, out = await run_module("--plan", str(plan))
    message = orjson.loads(out)
    assert (code, message["event"], message["value"]["reason"]) == (2, "error", "Usage")
    code, out = await run_module("--plan", str(tmp_path / "missing.json"))
    assert (code, orjson.loads(out)["event"]) == (2, "error")


async def test_failed_requests_give_exit_code_1(port: int, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_bytes(plan_for(port).to_bytes())
    code, out = await run_module("--plan", str(plan), "--duration", "0.3")
    assert code == 1
    assert orjson.loads(out.splitlines()[-1])["value"]["requests"]["by_kind"]["connect_refused"] > 0
