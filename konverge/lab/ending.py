"""How the lab's programs learn that they are to end."""

from __future__ import annotations

import asyncio
import signal


def catch_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set from now on; for the running loop of the main thread."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
