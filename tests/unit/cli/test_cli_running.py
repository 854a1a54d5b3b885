"""A flow's process tells its run and its end in JSON lines; whatever it does, the command ends with one result."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from konverge.cli import running
from konverge.cli.running import FlowResult, flow_log, run_flow
from konverge.errors import CheckRefused, FinalError, KonvergeError, Unavailable
from konverge.operate.orchestrator import PrefectServer

SERVER = PrefectServer("http://127.0.0.1:1/api")
Imitate = Callable[[str], list[Any]]


@pytest.fixture
def imitate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Imitate:
    """Let a script stand in for the flow's process; returns the processes that were started."""
    monkeypatch.setenv("KONVERGE_PREFECT_HOME", str(tmp_path))
    real = asyncio.create_subprocess_exec

    def use(script: str) -> list[Any]:
        started: list[Any] = []

        async def start(*words: str, **options: Any) -> Any:
            assert words[1:3] == ("-m", "flows.run")
            started.append(await real(sys.executable, "-c", script, words[3], **options))
            return started[-1]

        monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
        return started

    return use


async def test_the_result_and_the_address_of_the_run_come_back(imitate: Imitate) -> None:
    imitate(
        "import sys, json\n"
        "given = json.load(sys.stdin)\n"
        'print(\'noise before\'); print(\'{"flow_run": "1", "url": "http://ui/1"}\', flush=True)\n'
        "print('[1]'); print(json.dumps({'result': {'name': sys.argv[1], **given}}))"
    )
    urls: list[str] = []
    result = await run_flow("config-sync", {"a": 1}, server=SERVER, on_start=urls.append)
    assert result == FlowResult({"name": "config-sync", "a": 1}, "http://ui/1")
    assert urls == ["http://ui/1"]


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("CheckRefused", CheckRefused),
        ("Unavailable", Unavailable),
        ("FinalError", FinalError),
        ("Nonsense", FinalError),
    ],
)
async def test_a_failure_of_the_flow_is_raised_as_what_it_was(
    imitate: Imitate, type_: str, kind: type[KonvergeError]
) -> None:
    line = {"error": {"reason": "Paused", "message": "no", "hint": "docs/reference/errors.md#paused"}, "type": type_}
    imitate(f"print(__import__('json').dumps({line!r})); raise SystemExit(3)")
    with pytest.raises(KonvergeError) as caught:
        await run_flow("config-sync", {}, server=SERVER)
    assert type(caught.value) is kind
    assert caught.value.triple() == line["error"]


@pytest.mark.parametrize(
    "script",
    [
        "raise SystemExit(1)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        'print(\'{"flow_run": "1"}\')',
        "print('{\"result\": 1}'); raise SystemExit(5)",
        "raise ValueError('boom')",
    ],
)
async def test_a_flow_that_ends_without_a_word_has_crashed_and_the_log_is_named(
    imitate: Imitate, script: str
) -> None:
    imitate(script)
    with pytest.raises(FinalError) as caught:
        await run_flow("config-sync", {}, server=SERVER)
    assert caught.value.reason == "FlowCrashed"
    assert str(flow_log()) in caught.value.message


async def test_what_the_flow_writes_beside_its_lines_goes_to_the_log(imitate: Imitate) -> None:
    imitate("import sys; print('a log line', file=sys.stderr); print('{\"result\": null}')")
    await run_flow("config-sync", {}, server=SERVER)
    assert flow_log().read_text() == "a log line\n"
    assert flow_log().parent.stat().st_mode & 0o777 in (0o700, 0o755)


async def begin(started: list[Any], told: list[str]) -> asyncio.Task[Any]:
    task = asyncio.create_task(run_flow("legacy-migration", {}, server=SERVER, on_start=told.append))
    async with asyncio.timeout(10):
        while not told:  # noqa: ASYNC110 - told by a callback
            await asyncio.sleep(0.01)
    return task


PATIENT = (
    "import signal, sys, time\n"
    "def stop(*_):\n"
    "    time.sleep(0.1); print('gave back', file=sys.stderr, flush=True); sys.exit(130)\n"
    "signal.signal(signal.SIGINT, {handler})\n"
    'print(\'{{"flow_run": "1", "url": "u"}}\', flush=True)\n'
    "time.sleep(60)"
)


async def test_an_interrupt_is_passed_on_and_waited_for(imitate: Imitate) -> None:
    started, told = imitate(PATIENT.format(handler="stop")), []  # type: ignore[var-annotated]
    task = await begin(started, told)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert started[0].returncode == 130
    assert "gave back" in flow_log().read_text()


async def test_a_flow_that_does_not_give_back_in_time_is_ended(
    imitate: Imitate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "GIVE_BACK_SECONDS", 0.2)
    started, told = imitate(PATIENT.format(handler="signal.SIG_IGN")), []  # type: ignore[var-annotated]
    task = await begin(started, told)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10):
        assert await started[0].wait() == -9
