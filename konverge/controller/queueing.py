"""The change queue: what changed, by key, each with a debounce that is short at rest and longer under churn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Key(StrEnum):
    """What can change."""

    SOURCES = "sources"
    """Something that the configuration may be rendered from, or the fleet's own spec."""
    PROXIES = "proxies"
    """The proxies of the fleet: who is there, and who is in traffic."""
    IDENTITY = "identity"
    """The Secrets that the fleet's certificates live in."""


@dataclass(frozen=True, slots=True)
class Pause:
    """How long changes are collected, in seconds."""

    shortest: float
    """At rest: a change is acted upon when nothing else changed for this long ..."""
    longest: float
    """... or at the latest after this long, so that steady churn cannot hold it up."""


PAUSES: Mapping[Key, Pause] = {
    Key.SOURCES: Pause(0.02, 1.0),
    # Who waits for traffic must not wait for others; what is done for a batch costs no more than for its members.
    Key.PROXIES: Pause(0.02, 0.1),
    Key.IDENTITY: Pause(0.05, 1.0),
}
GROWTH = 2.0
"""How much the pause grows with each wake-up that follows the one before within the longest pause."""


class Signal:
    """Tells one waiter that something changed; changes that come close together are one. Level-triggered."""

    def __init__(self, pause: Pause = PAUSES[Key.SOURCES]) -> None:
        self._event = asyncio.Event()
        self._urgent = False
        self._limits = pause
        self._pause = pause.shortest
        self._woken = float("-inf")

    @property
    def pending(self) -> bool:
        """Whether a change waits to be taken."""
        return self._event.is_set()

    def set(self, *, urgent: bool = False) -> None:
        """Something changed; what is urgent has settled elsewhere, and waits for nothing more."""
        self._urgent = self._urgent or urgent
        self._event.set()

    async def wait(self, timeout: float | None = None) -> bool:
        """Return True after a change has settled, False when ``timeout`` seconds passed without one."""
        try:
            async with asyncio.timeout(timeout):
                await self._event.wait()
        except TimeoutError:
            return False
        await self._settle()
        return True

    async def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        churning = started - self._woken < self._limits.longest
        grown = min(self._pause * GROWTH, self._limits.longest / 2)
        self._pause = grown if churning else self._limits.shortest
        while self._event.is_set() and not self._urgent and loop.time() < started + self._limits.longest:
            self._event.clear()
            await asyncio.sleep(min(self._pause, max(0.0, started + self._limits.longest - loop.time())))
        self._event.clear()
        self._urgent = False
        self._woken = loop.time()


class ChangeQueue:
    """One signal per key; a key that changes again before it is taken is one change."""

    def __init__(self, pauses: Mapping[Key, Pause] = PAUSES) -> None:
        self._signals = {key: Signal(pause) for key, pause in pauses.items()}

    def add(self, key: Key, *, urgent: bool = False) -> None:
        """Note that something changed; what is urgent is taken without waiting whether more changes follow."""
        self._signals[key].set(urgent=urgent)

    async def take(self, key: Key, timeout: float | None = None) -> bool:
        """Wait until a key changed and settled; False when ``timeout`` seconds passed without a change."""
        return await self._signals[key].wait(timeout)
