"""A work queue of keys: each key at most once in it, never worked on by two workers at a time."""

from __future__ import annotations

import asyncio
from collections import deque

Key = tuple[str, str]
"""(namespace, name)."""

RETRY = (0.005, 30.0)
"""Seconds: client-go's default rate limiter starts at 5 ms and doubles; its cap of 1000 s is cut for a lab."""


class WorkQueue:
    """Keys to reconcile. Everything runs on one event loop, so that no lock is needed."""

    def __init__(self) -> None:
        self._ready: deque[Key] = deque()
        self._dirty: set[Key] = set()
        self._busy: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()

    def add(self, key: Key) -> None:
        """Queue a key; one that is being worked on comes again after that."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._busy:
            self._ready.append(key)
            self._wake_one()

    def add_after(self, key: Key, delay: float) -> None:
        """Queue a key in ``delay`` seconds; the earlier of two such wishes wins."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= loop.time() + delay:
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_later(delay, self._expire, key)

    def retry(self, key: Key) -> None:
        """Queue a key that failed, later each time."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        self.add_after(key, min(RETRY[0] * 2**count, RETRY[1]))

    def succeed(self, key: Key) -> None:
        """Forget the failures of a key."""
        self._failures.pop(key, None)

    async def take(self) -> Key:
        """Wait for a key; ``done`` must follow."""
        while not self._ready:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._busy.add(key)
        return key

    def done(self, key: Key) -> None:
        """Say that the work on a key is over."""
        self._busy.discard(key)
        if key in self._dirty:
            self._ready.append(key)
            self._wake_one()

    def _expire(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
