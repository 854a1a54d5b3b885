"""Tells a proxy that loads from one whose load lock was left behind, from what it answers over time; no I/O.

Both answer 429 with the same words. Kong takes one node-wide lock per load, with a time to live of 60 s
(``kong/db/declarative/import.lua``), and a worker that is killed while it loads leaves it: every push is refused
until the lock ends, ``kong reload`` does not clear it, and ``GET /status`` looks healthy all the while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from konverge.kong.outcomes import Busy, PushOutcome, WorkerLost

LOCK_SECONDS = 60.0
"""Time to live of the lock: ``DECLARATIVE_LOCK_TTL`` of Kong; measured 60.3 s."""
LONGEST_RETRY = 10.0
"""Kong answers Retry-After with what the lock has left, but never more than this."""
LONGEST_LOAD = 15.0
"""Seconds of nothing but refusals that no load explains: 10,000 services with plugins load in 4 s."""


class LoadLock:
    """What is known of one proxy's load lock; times are seconds of a monotonic clock.

    A worker is taken for lost where some, but not all, worker processes were replaced within the last 60 s (a reload
    replaces all), or where nothing but refusals came for 15 s. One refusal alone shows nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._workers: frozenset[int] = frozenset()
        self._replaced: float | None = None
        self._refused: float | None = None

    def note_workers(self, pids: Collection[int]) -> None:
        """Note the processes of the workers, as ``GET /status`` lists them."""
        seen = frozenset(pids)
        if seen and self._workers and seen != self._workers:
            self._replaced = self._clock() if seen & self._workers else None
        self._workers = seen or self._workers

    def judge(self, outcome: PushOutcome) -> PushOutcome:
        """Return the outcome of a push, with a refusal that no load explains turned into :class:`WorkerLost`."""
        if not isinstance(outcome, Busy):
            self._refused = None
            return outcome
        now = self._clock()
        self._refused = now if self._refused is None else self._refused
        if self._replaced is not None and now - self._replaced < LOCK_SECONDS:
            return WorkerLost(_rest(self._replaced, now, outcome), "one of its workers died lately")
        if now - self._refused >= LONGEST_LOAD:
            words = f"nothing but refusals for {now - self._refused:.0f} s"
            return WorkerLost(_rest(self._refused, now, outcome), words)
        return outcome


def _rest(since: float, now: float, said: Busy) -> float:
    """Return the seconds that the lock can still live: what Kong says where that is no cap, else 60 s in all."""
    if said.retry_after < LONGEST_RETRY:
        return max(said.retry_after, 1.0)
    return max(LOCK_SECONDS - (now - since), LONGEST_RETRY)
