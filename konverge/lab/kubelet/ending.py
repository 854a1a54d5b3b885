"""The end of one process of a container: preStop, SIGTERM, SIGKILL, within a time that can only get shorter."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from konverge.lab.kubelet.processes import Process

MINIMUM_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL even where preStop has used up the grace period (kuberuntime)."""


class Ending:
    """Ends a process within ``grace`` seconds; ``pre_stop`` runs first and counts into them."""

    def __init__(self, process: Process, grace: float, pre_stop: Callable[[], Awaitable[None]] | None) -> None:
        self._process = process
        self._pre_stop = pre_stop
        self._deadline = _now() + grace
        self._hurry = asyncio.Event()

    def shorten(self, grace: float) -> None:
        """Leave at most ``grace`` seconds from now on."""
        if _now() + grace < self._deadline:
            self._deadline = _now() + grace
            self._hurry.set()

    async def run(self) -> None:
        """Return when the process and all of its session are dead."""
        process = self._process
        if self._pre_stop is not None:
            await self._until(self._pre_stop())
        process.signal(signal.SIGTERM)
        self._deadline = max(self._deadline, _now() + MINIMUM_GRACE)
        await self._until(process.wait())
        process.kill()
        await process.wait()

    async def _until(self, work: Awaitable[Any]) -> None:
        """Wait for ``work``, at most until the deadline or the end of the process."""
        task, ended = asyncio.ensure_future(work), asyncio.ensure_future(self._process.wait())
        try:
            while not task.done() and not ended.done() and (left := self._deadline - _now()) > 0:
                self._hurry.clear()
                hurry = asyncio.ensure_future(self._hurry.wait())
                await asyncio.wait({task, ended, hurry}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                hurry.cancel()
        finally:
            for waiting in (task, ended):
                waiting.cancel()
            await asyncio.gather(task, ended, return_exceptions=True)


def _now() -> float:
    return asyncio.get_running_loop().time()
