"""Runs one lab until a signal."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

from konverge.lab.supervisor.running import Lab
from konverge.lab.supervisor.settings import LabSettings
from konverge.lab.supervisor.supervising import Report

Show = Callable[[Lab], Awaitable[None]]
"""Shows a running lab until it is cancelled."""


async def serve_lab(settings: LabSettings, report: Report, on_ready: Callable[[Lab], None], show: Show) -> None:
    """Run a lab until SIGTERM, SIGINT or SIGHUP, and end it in order, wherever the signal finds it."""
    work = asyncio.create_task(_serve(settings, report, on_ready, show))
    stopped = False

    def stop() -> None:
        nonlocal stopped
        # A second signal must not break the orderly end that the first one has begun.
        if not stopped:
            stopped = True
            work.cancel()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await work
    except asyncio.CancelledError:
        if not stopped:
            raise


async def _serve(settings: LabSettings, report: Report, on_ready: Callable[[Lab], None], show: Show) -> None:
    async with Lab.start(settings, report) as lab:
        on_ready(lab)
        await show(lab)


async def show_nothing(_lab: Lab) -> None:
    """Show nothing, for ever."""
    await asyncio.Event().wait()
