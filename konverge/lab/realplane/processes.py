"""One program of the control plane as a child process that dies with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from konverge.errors import Unavailable
from konverge.lab.pod import die_with_parent

STOP_TIMEOUT = 15.0
"""Seconds between SIGTERM and SIGKILL; kube-apiserver finishes requests in flight first."""
SHOWN_LINES = 6


class Program:
    """A program that can be started, stopped, killed and started again; it runs and logs in a directory."""

    def __init__(self, command: Sequence[str], directory: Path) -> None:
        self.name = Path(command[0]).name
        self.log = directory / f"{self.name}.log"
        self._directory = directory
        self._command = list(command)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs, else None."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process and running else None

    async def start(self) -> None:
        """Start the program; its output is appended to the log."""
        parent = os.getpid()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self._directory,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the parent, which stops its children in order
                preexec_fn=lambda: die_with_parent(parent),
            )

    async def stop(self, timeout: float = STOP_TIMEOUT) -> None:
        """End the program with SIGTERM, after ``timeout`` seconds with SIGKILL."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(timeout):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End the program with SIGKILL, as a crash does."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        await self._process.wait()

    async def fail(self) -> None:
        """Wait until the program ends by itself, then raise Unavailable with the end of its log."""
        assert self._process is not None, f"{self.name} was not started"
        code = await self._process.wait()
        lines = await asyncio.to_thread(self._read_end)
        raise Unavailable(
            f"{self.name} ended with code {code}: {' | '.join(lines)} (log: {self.log})",
            reason="ControlPlaneFailed",
            hint="howto/real-control-plane.md#when-it-does-not-start",
        )

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _read_end(self) -> list[str]:
        with self.log.open(errors="replace") as lines:
            return [line.strip()[-300:] for line in deque(lines, SHOWN_LINES)]


async def race(work: Coroutine[Any, Any, Any], *programs: Program) -> None:
    """Wait for ``work``, or raise what the first program that ends has to say."""
    tasks = [asyncio.create_task(work), *(asyncio.create_task(program.fail()) for program in programs)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
