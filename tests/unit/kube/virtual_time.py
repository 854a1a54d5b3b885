"""An event loop whose clock jumps to the next timer: hours of waiting take no time, and order is exact."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """Advances its clock instead of sleeping; waiting without a timer would be for ever, and is an error."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._idle = 0
        selector = self._selector  # type: ignore[attr-defined]
        look = selector.select

        def select(timeout: float | None) -> Any:
            if timeout is None:
                self._idle += 1
                if self._idle > 100:
                    raise RuntimeError("everything waits and no timer is set")
                return look(0.01)
            self._idle = 0
            self._now += max(timeout, 0.0)
            return look(0)

        selector.select = select

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now


def run_virtually(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine on virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def now() -> float:
    """The time of the running loop."""
    return asyncio.get_running_loop().time()
