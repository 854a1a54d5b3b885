"""The lock of loading: one load at a time, and it outlives its owner."""

from __future__ import annotations

import math
import time

RETRY_CAP = 10


class LoadLock:
    """Kong's node-wide ``declarative:lock``: nobody waits for it, and a killed owner leaves it for its TTL."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._until = 0.0
        self._orphaned = False

    def acquire(self) -> bool:
        """Take the lock; False where somebody has it."""
        if time.monotonic() < self._until:
            return False
        self._until, self._orphaned = time.monotonic() + self._ttl, False
        return True

    def release(self) -> None:
        """Give the lock back, unless its owner was killed."""
        if not self._orphaned:
            self._until = 0.0

    def orphan(self) -> None:
        """Leave the lock behind, as a worker does that is killed while it loads."""
        self._until, self._orphaned = time.monotonic() + self._ttl, True

    def retry_after(self) -> int:
        """Return the seconds of Retry-After."""
        return max(1, min(RETRY_CAP, math.ceil(self._until - time.monotonic())))
