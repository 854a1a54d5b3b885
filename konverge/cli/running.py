"""Runs a flow in a process of its own against the Prefect server, which is found or started first.

The library never imports Prefect; the flow's process tells in JSON lines which run it is and how it ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

import konverge.errors as tree
from konverge.errors import FinalError, KonvergeError
from konverge.operate.orchestrator import PrefectServer, client_environment, default_home, ensure_server

GIVE_BACK_SECONDS = 120.0
"""How long a flow may take after Ctrl-C: it brings the traffic back before it ends."""
LONGEST_LINE = 64 << 20
"""Bytes of one JSON line: a result may hold a row for every proxy of a large fleet."""


@dataclass(frozen=True, slots=True)
class FlowResult:
    """What a flow returned, and where its run can be looked at."""

    value: Any
    url: str


async def run_flow(
    name: str,
    parameters: dict[str, Any],
    *,
    server: PrefectServer | None = None,
    on_start: Callable[[str], None] | None = None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> FlowResult:
    """Run a flow to its end; its failure is raised with the reason, message and hint that the flow gave.

    ``on_start`` gets the address of the run, ``on_progress`` what the run tells on its way.
    """
    found = server or await ensure_server()
    with await asyncio.to_thread(_open_log) as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "flows.run",
            name,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=client_environment(found),
            start_new_session=True,
            limit=LONGEST_LINE,
        )
    try:
        return await _follow(process, parameters, on_start, on_progress)
    except asyncio.CancelledError:
        await _interrupt(process)
        raise


def flow_log() -> Path:
    """Return the file that holds what flows write while the command shows progress."""
    return default_home() / "flows.log"


def _open_log() -> Any:
    path = flow_log()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path.open("ab")


async def _follow(
    process: asyncio.subprocess.Process,
    parameters: dict[str, Any],
    on_start: Callable[[str], None] | None,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
) -> FlowResult:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(orjson.dumps(parameters))
    process.stdin.close()
    url, last = "", {}
    async for raw in process.stdout:
        with suppress(orjson.JSONDecodeError):
            line = orjson.loads(raw)
            if not isinstance(line, dict):
                continue
            if "flow_run" in line:
                url = line.get("url", "")
                if on_start is not None:
                    on_start(url)
            elif "progress" in line:
                if on_progress is not None:
                    on_progress(line["progress"])
            else:
                last = line
    code = await process.wait()
    if "error" in last:
        raise _rebuild(last)
    if code != 0 or "result" not in last:
        raise FinalError(
            f"The flow ended with code {code} and no result; see {flow_log()}",
            reason="FlowCrashed",
            hint="reference/errors.md#flow-crashed",
        )
    return FlowResult(last["result"], url)


def _rebuild(line: dict[str, Any]) -> KonvergeError:
    """Turn the triple of another process into the same type of error, so that the exit code is the same."""
    triple = line["error"]
    kind = getattr(tree, str(line.get("type", "")), FinalError)
    known = kind if isinstance(kind, type) and issubclass(kind, KonvergeError) else FinalError
    hint = str(triple.get("hint", "")).removeprefix(tree.DOCS)
    return known(str(triple["message"]), reason=str(triple["reason"]), hint=hint or None)


async def _interrupt(process: asyncio.subprocess.Process) -> None:
    """Pass Ctrl-C on and wait for the flow to bring things back; a second Ctrl-C ends it at once."""
    if process.returncode is not None:
        return
    os.killpg(process.pid, signal.SIGINT)
    try:
        async with asyncio.timeout(GIVE_BACK_SECONDS):
            await process.wait()
    except (TimeoutError, asyncio.CancelledError):
        os.killpg(process.pid, signal.SIGKILL)
