"""Visits the proxies of a wave side by side; the slow and the dead hold up neither the others nor the wave.

A push holds one of the ``concurrency`` slots for as long as the healthy ones need; then it lends the slot to the next
proxy and goes on by itself. The wave ends when everybody is done or has used up its time: several times what the
slowest healthy proxy took.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from konverge.model.proxy import Proxy, ProxyOutcome
from konverge.model.revision import Revision
from konverge.operate.configuring import Visit
from konverge.operate.gathering import gather_all
from konverge.operate.ports import Gateways

SLOT_SECONDS = 0.25
"""A push holds its slot this long before it is lent, while nobody has finished."""
SHORTEST_SLOT = 0.1
SLOT_SHARE = 1.5
"""Times the median of the turns that ended: after that it is lent. Taking one for slow that was only late costs
little, as no more than ``concurrency`` slots are lent; lending late lets the healthy ones wait."""
GREETED = 4
"""Times ``concurrency``: proxies under way at once, those included that are only greeted or wait for their turn."""
STRAGGLER_SECONDS = 40.0
"""A proxy gets at least this long once others have finished: more than the probes (15 s) and all repeats take."""
VISIT_SECONDS = 90.0
"""What a proxy gets at most, and while nobody has finished: Kong holds its load lock for 60 s."""
LOOK_SECONDS = 1.0
"""How often a slow visit's allowance is worked out anew."""


class Patience:
    """How long a visit may take, by what the finished ones took."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def note(self, seconds: float) -> None:
        """Note how long a healthy proxy took."""
        self._times.append(seconds)

    @property
    def visit(self) -> float:
        """Seconds until a visit is given up."""
        return min(VISIT_SECONDS, max(STRAGGLER_SECONDS, 5.0 * max(self._times))) if self._times else VISIT_SECONDS


class Turns:
    """Who may be pushed to: ``concurrency`` proxies at a time, and as many again while slow ones go on.

    A turn that takes longer than the healthy ones need is lent: its slot is free for the next proxy. Until that was
    found out the slot was lost to the healthy ones, so one more of them may go first, once.
    """

    def __init__(self, concurrency: int) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._loans = concurrency
        self._extra = 0
        """Turns that end without freeing a slot: as many as were given for slots that had been lost."""
        self._times: list[float] = []

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for a slot and hold it in the block, or until it is lent."""
        await self._slots.acquire()
        lent = False

        def lend() -> None:
            nonlocal lent
            if self._loans > 0:
                lent, self._loans = True, self._loans - 1
                self._slots.release()
                if self._loans > 0:
                    self._loans, self._extra = self._loans - 1, self._extra + 1
                    self._slots.release()

        started = time.monotonic()
        timer = asyncio.get_running_loop().call_later(self._patience(), lend)
        try:
            yield
        finally:
            timer.cancel()
            if lent:
                self._loans += 1
            else:
                self._give_back(time.monotonic() - started)

    def _give_back(self, seconds: float) -> None:
        self._times.append(seconds)
        if self._extra:
            self._loans, self._extra = self._loans + 1, self._extra - 1
        else:
            self._slots.release()

    def _patience(self) -> float:
        """Return the seconds until a slot is lent."""
        return max(SHORTEST_SLOT, SLOT_SHARE * statistics.median(self._times)) if self._times else SLOT_SECONDS


async def visit_all(
    gateways: Gateways,
    revision: Revision,
    proxies: Sequence[Proxy],
    concurrency: int,
    *,
    note: Callable[[Proxy, ProxyOutcome], Awaitable[None]],
    may_act: Callable[[], bool] | None = None,
) -> list[ProxyOutcome]:
    """Bring proxies to a revision, ``concurrency`` at a time, and tell of each as soon as it is done.

    Greeting a proxy takes no turn, so the dead and the silent cost nobody anything. ``note`` is awaited outside the
    turn too.
    """
    patience = Patience()
    turns, doors = Turns(concurrency), asyncio.Semaphore(GREETED * concurrency)

    async def visit(proxy: Proxy) -> ProxyOutcome:
        async with doors:
            outcome = await _follow(Visit(gateways.reach(proxy), revision, may_act, turns.take), patience)
        await note(proxy, outcome)
        return outcome

    return await gather_all(visit(proxy) for proxy in proxies)


async def _follow(visit: Visit, patience: Patience) -> ProxyOutcome:
    """Run a visit; it is given up when its time is over, the time that it waited for its turn not counted."""
    work = asyncio.create_task(visit.run())
    try:
        while not work.done() and (left := patience.visit - visit.seconds) > 0:
            await asyncio.wait({work}, timeout=min(left, LOOK_SECONDS))
        if not work.done():
            await _cancel(work)
            return visit.give_up()
        outcome = work.result()
        if outcome.ok:
            patience.note(visit.seconds)
        return outcome
    finally:
        if not work.done():
            await _cancel(work)


async def _cancel(work: asyncio.Task[ProxyOutcome]) -> None:
    work.cancel()
    await asyncio.wait({work})
