"""One child process of the supervisor: started, waited for, logged, ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from konverge.errors import Unavailable

TERM_SECONDS = 5.0
"""How long a component may take to end after SIGTERM."""
TAIL_BYTES = 2000


class Child:
    """A component's process. Its first line of JSON on standard output says that it is ready."""

    def __init__(self, name: str, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log = log
        self.restarts = 0
        self.ready = asyncio.Event()
        self.details: dict[str, Any] = {}
        """What the ready line says."""
        self._environment = dict(environment)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 where none runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else 0

    async def start(self) -> None:
        """Start the process; output goes to the log."""
        self.ready.clear()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment,
                # Ctrl-C of a terminal reaches the supervisor only: it ends the others in order.
                process_group=0,
            )
        assert self._process.stdout is not None
        self._reader = asyncio.create_task(self._read(self._process.stdout))

    async def wait_ready(self, timeout: float) -> None:
        """Return once the ready line is there; Unavailable (ComponentFailed) where the process ends before."""
        ready = asyncio.create_task(self.ready.wait())
        ended = asyncio.create_task(self.wait())
        tasks: set[asyncio.Task[Any]] = {ready, ended}
        try:
            await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self.ready.is_set():
                return
            what = "ended" if ended.done() else f"was not ready after {timeout:.0f} s"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise self._failed(what)

    async def wait(self) -> int:
        """Wait for the end of the process and return its code."""
        assert self._process is not None
        code = await self._process.wait()
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=1.0)
        return code

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL where that does not help."""
        if self._process is None:
            return
        self.send(signal.SIGTERM)
        try:
            async with asyncio.timeout(TERM_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self._process.wait()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    def send(self, number: signal.Signals) -> None:
        """Send a signal where the process runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def read_tail(self) -> str:
        """Return the last line of the log."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - TAIL_BYTES))
            lines = log.read().decode("utf-8", "replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""

    def _failed(self, what: str) -> Unavailable:
        tail = self.read_tail()
        return Unavailable(
            f"The lab's {self.name} {what}{': ' + tail if tail else ''} (log: {self.log})",
            reason="ComponentFailed",
            hint="howto/lab.md#when-it-does-not-start",
        )

    async def _read(self, stream: asyncio.StreamReader) -> None:
        with self.log.open("ab", buffering=0) as log:
            async for line in stream:
                log.write(line)
                if not self.ready.is_set():
                    self._look_for_ready(line)

    def _look_for_ready(self, line: bytes) -> None:
        try:
            found = json.loads(line)
        except ValueError:
            return
        if isinstance(found, dict):
            self.details = found
            self.ready.set()


def python(module: str, *arguments: str) -> list[str]:
    """Return the command line of a module of ours."""
    return [sys.executable, "-m", module, *arguments]
