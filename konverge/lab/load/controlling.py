"""Running a plan under the control of lines of words, from standard input or from a named pipe."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

from konverge.errors import UsageError
from konverge.lab.ending import catch_signals
from konverge.lab.load.generator import LoadGenerator
from konverge.lab.load.plan import LoadPlan
from konverge.lab.load.report import LoadReport

Announce = Callable[[str, Any], None]
"""Called with the name of an event and its value."""


def announce_line(event: str, value: Any) -> None:
    """Write an event as one JSON line to standard output."""
    content = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    sys.stdout.buffer.write(orjson.dumps({"event": event, "value": content}) + b"\n")
    sys.stdout.buffer.flush()


async def run_plan(
    plan: LoadPlan,
    *,
    control: str = "",
    duration: float | None = None,
    announce: Announce = announce_line,
) -> LoadReport:
    """Run until ``stop`` is read, ``duration`` seconds have passed, or SIGINT or SIGTERM arrives."""
    stop = catch_signals()
    generator = LoadGenerator(plan)
    listener: asyncio.Task[None] | None = None
    async with open_control(control) as lines:
        await generator.start()
        announce("started", {"pid": os.getpid()})
        if lines is not None:
            listener = asyncio.create_task(_obey(lines, generator, stop, announce))
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(duration):
                    await stop.wait()
        finally:
            if listener is not None:
                listener.cancel()
            report = await generator.stop()
    return report


async def _obey(
    lines: asyncio.StreamReader, generator: LoadGenerator, stop: asyncio.Event, announce: Announce
) -> None:
    while line := await lines.readline():
        verb, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
        if verb == "mark" and rest.strip():
            generator.mark(rest.strip())
        elif verb == "snapshot":
            announce("snapshot", generator.snapshot())
        elif verb == "stop":
            break
        elif verb:
            error = UsageError(
                f"Unknown control line {verb[:40]!r}: mark NAME, snapshot or stop", hint="reference/load.md"
            )
            announce("error", error.triple())
    # The end of standard input is a stop too: whoever held the other end is gone.
    stop.set()


@contextlib.asynccontextmanager
async def open_control(control: str) -> AsyncIterator[asyncio.StreamReader | None]:
    """Yield a reader of control lines: of standard input for "-", of a named pipe (made where missing), or None."""
    if not control:
        yield None
        return
    # Opened for reading and writing, a named pipe does not end when one writer closes it.
    file = (
        sys.stdin.buffer if control == "-" else os.fdopen(await asyncio.to_thread(_open_pipe, Path(control)), "rb", 0)
    )
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    try:
        yield reader
    finally:
        transport.close()


def _open_pipe(path: Path) -> int:
    try:
        if not path.exists():
            os.mkfifo(path, 0o600)
        if not stat.S_ISFIFO(path.stat().st_mode):
            raise UsageError(f"--control {path} is no named pipe", hint="reference/load.md#process")
        return os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(
            f"--control {path} cannot be opened: {error.strerror}", hint="reference/load.md#process"
        ) from error


def write_report(report: LoadReport, path: Path) -> None:
    """Write the report as indented JSON; UsageError where the file cannot be written."""
    try:
        path.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--report {path} cannot be written: {error.strerror}", hint="reference/load.md#process"
        ) from error
