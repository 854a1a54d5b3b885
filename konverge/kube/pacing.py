"""Keeps what repeats side by side from striking at once: one pace for all callers, and one word that it is over."""

from __future__ import annotations

import asyncio


class Pace:
    """Lets callers through one after the other, ``per_second`` at most; whoever comes first goes first.

    client-go allows a whole process 5 to 50 requests per second; at twenty a controller with thirty watches is back
    within two seconds.
    """

    def __init__(self, per_second: float = 20.0) -> None:
        self._interval = 1.0 / per_second
        self._next = 0.0
        self._over = asyncio.Event()

    async def wait(self) -> None:
        """Return when it is the caller's turn."""
        loop = asyncio.get_running_loop()
        turn = max(self._next, loop.time())
        self._next = turn + self._interval
        await asyncio.sleep(max(0.0, turn - loop.time()))

    async def rest(self, seconds: float) -> None:
        """Back off for that long, or until somebody got through; then wait for the turn."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            pass
        await self.wait()

    def note_success(self) -> None:
        """Somebody got through after a failure: whoever rests need rest no longer."""
        self._over.set()
        self._over.clear()
