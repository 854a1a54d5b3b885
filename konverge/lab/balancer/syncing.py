"""When the balancer notices a change: one timer per tier, started by the first change it has not seen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable


class Syncing:
    """Calls ``sync`` some time after the first of any number of changes."""

    def __init__(self, sync: Callable[[], None], delay: tuple[float, float]) -> None:
        self._sync = sync
        self.delay = delay
        """Seconds: the shortest and the longest; drawn anew each time."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def pending(self) -> bool:
        """Whether a change waits to be noticed."""
        return self._timer is not None

    def notice(self) -> None:
        """Say that something has changed."""
        if self._timer is None:
            delay = random.uniform(*self.delay)
            self._timer = asyncio.get_running_loop().call_later(delay, self._fire)

    def stop(self) -> None:
        """Forget the change that waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._sync()
