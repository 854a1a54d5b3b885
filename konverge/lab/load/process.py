"""The load generator in a process of its own, so that its clock does not share a GIL with what it measures.

The plan goes through a file that only the owner reads, since it contains credentials. The control channel is
lines of words on standard input (``mark NAME``, ``snapshot``, ``stop``); answers are JSON lines on standard
output: ``{"event": "started" | "snapshot" | "report" | "error", "value": ...}``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from konverge.errors import KonvergeError, Unavailable, UsageError
from konverge.lab.load.plan import LoadPlan
from konverge.lab.load.report import LoadReport, Snapshot

START_TIMEOUT = 30.0
"""Seconds until the process says that the schedule runs; importing takes about one."""
ANSWER_TIMEOUT = 10.0
STOP_MARGIN = 15.0
"""Seconds beyond the plan's own timeout within which the report must be there."""
LONGEST_LINE = 64 << 20


class LoadProcess:
    """The same verbs as :class:`konverge.lab.load.LoadGenerator`, but each has to be awaited here."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._asking = asyncio.Lock()
        self._report: LoadReport | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.stop()
        else:
            await self.kill()

    async def start(self) -> None:
        """Start the process and return once its schedule runs; Unavailable where it does not."""
        self._directory = tempfile.TemporaryDirectory(prefix="konverge-load-")
        plan = Path(self._directory.name, "plan.json")
        await asyncio.to_thread(write_private, plan, self._plan.to_bytes())
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "konverge.lab.load",
            "--plan",
            str(plan),
            "--control",
            "-",
            "--die-with-parent",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
        )
        try:
            await self._read("started", START_TIMEOUT)
        except BaseException:
            await self.kill()
            raise

    async def mark(self, phase: str) -> None:
        """Begin a phase; it begins when the process reads this, within a few milliseconds."""
        if not phase.strip() or "\n" in phase:
            raise UsageError("A phase needs a name of one line", hint="reference/load.md#phases")
        await self._send(f"mark {phase}")

    async def snapshot(self) -> Snapshot:
        """Return the counts so far."""
        async with self._asking:
            await self._send("snapshot")
            return Snapshot.model_validate(await self._read("snapshot", ANSWER_TIMEOUT))

    async def stop(self) -> LoadReport:
        """End the run, wait for the process to end and return the report; safe to call twice."""
        if self._report is None:
            try:
                async with self._asking:
                    await self._send("stop")
                    timeout = self._plan.timeout + STOP_MARGIN
                    self._report = LoadReport.model_validate(await self._read("report", timeout))
            finally:
                await self.kill(grace=ANSWER_TIMEOUT if self._report else 0.0)
        return self._report

    async def kill(self, grace: float = 0.0) -> None:
        """End the process, at the latest after ``grace`` seconds, and remove the plan."""
        process, self._process = self._process, None
        if process is not None:
            try:
                async with asyncio.timeout(grace):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            _close_pipes(process)
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise Unavailable(
                "The load process is not running", reason="LoadNotRunning", hint="reference/load.md#python"
            )
        return self._process

    async def _send(self, words: str) -> None:
        stdin = self._running().stdin
        assert stdin is not None
        try:
            stdin.write(words.encode() + b"\n")
            await stdin.drain()
        except OSError as error:
            raise _ended(self._running().returncode) from error

    async def _read(self, event: str, timeout: float) -> Any:
        process = self._running()
        assert process.stdout is not None
        try:
            async with asyncio.timeout(timeout):
                line = await process.stdout.readline()
        except TimeoutError as error:
            raise Unavailable(
                f"The load process did not say {event!r} within {timeout:g} s",
                reason="LoadSilent",
                hint="reference/load.md#python",
            ) from error
        if not line:
            raise _ended(await process.wait())
        message = orjson.loads(line)
        if message["event"] == "error":
            raise KonvergeError(message["value"]["message"], reason=message["value"]["reason"])
        if message["event"] != event:
            raise Unavailable(f"The load process said {message['event']!r} where {event!r} was due")
        return message["value"]


def _ended(code: int | None) -> Unavailable:
    return Unavailable(
        f"The load process ended by itself with code {code}", reason="LoadEnded", hint="reference/load.md#python"
    )


def _close_pipes(process: asyncio.subprocess.Process) -> None:
    """Close both pipes, so that none is left to the garbage collector."""
    if process.stdin is not None:
        process.stdin.close()
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        file.write(content)
