"""What the leader does all the time: five loops, each woken by what concerns it, none waiting for another."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from konverge.controller.commissioning import LOOK_SECONDS
from konverge.controller.mending import next_mend
from konverge.controller.queueing import ChangeQueue, Key
from konverge.controller.reconciling import Reconciler
from konverge.errors import KonvergeError
from konverge.operate.settling import announce_serial

log = logging.getLogger(__name__)

RENDER_SECONDS = 60.0
"""Without a change the sources are looked at this often: a certificate in them may have expired."""
PATROL_SECONDS = 5.0
"""Every proxy's hash is read this often, one request each, spread over the time: a restarted proxy is found within
it."""
SHORTEST_PAUSE = 0.05
RETRY_SECONDS = 1.0
"""Seconds until a loop goes on that has failed."""


async def lead(reconciler: Reconciler, queue: ChangeQueue) -> None:
    """Keep the fleet on its configuration until cancelled."""
    async with asyncio.TaskGroup() as group:
        for work in (_render, _act, _refresh, _patrol):
            group.create_task(work(reconciler, queue))
        group.create_task(reconciler.site.states.run())


async def attempt(reconciler: Reconciler, work: Callable[[], Awaitable[object]]) -> bool:
    """Do one piece of work; a failure is counted, shown and no end."""
    try:
        await work()
    except KonvergeError as error:
        reconciler.site.note_error(error)
        return False
    except Exception:
        reconciler.site.note_fault()
        return False
    return True


async def _render(reconciler: Reconciler, queue: ChangeQueue) -> None:
    """Compile after every settled change of the sources."""
    delay, changed = 0.0, False

    async def work() -> None:
        nonlocal changed
        if (fleet := reconciler.read_fleet()) is not None and not fleet.spec.paused:
            changed = await reconciler.compile(fleet)

    while True:
        await queue.take(Key.SOURCES, delay)
        changed = False
        delay = RENDER_SECONDS if await attempt(reconciler, work) else RETRY_SECONDS
        # The changes have settled before they were compiled: another draft is rolled out at once.
        queue.add(Key.PROXIES, urgent=changed)


async def _act(reconciler: Reconciler, queue: ChangeQueue) -> None:
    """Start what is to be done after every change, and when a sick proxy is due again."""

    async def work() -> None:
        if (fleet := reconciler.read_fleet()) is not None:
            await reconciler.act(fleet)

    pause = RENDER_SECONDS
    while True:
        await queue.take(Key.PROXIES, pause)
        acted = time.monotonic()
        if await attempt(reconciler, work):
            pause = next_pause(reconciler, acted)
        else:
            # Whatever comes meanwhile: what fails is not tried more often than this, but it is tried again.
            await asyncio.sleep(RETRY_SECONDS)
            pause = 0.0


def next_pause(reconciler: Reconciler, acted: float) -> float:
    """Return the seconds until something is due without a change.

    ``acted`` is when we began to act last (monotonic). What was due by then and was not started cannot be started as
    things are: the fleet is paused, say, or a roll-out is under way. The change that makes it possible wakes us.
    """
    site = reconciler.site
    due = [RENDER_SECONDS]
    passed = max(0.0, time.monotonic() - acted)
    if (sick := site.roster.next_due(acted)) is not None:
        due.append(sick - passed)
    if (mend := next_mend(list(site.roster), acted)) is not None:
        due.append(mend - passed)
    if site.aim.settled is not None and (until := site.aim.settled.until) is not None and until > acted:
        due.append(until - time.monotonic())
    if reconciler.commissioner.busy:
        due.append(LOOK_SECONDS)
    return max(SHORTEST_PAUSE, min(due))


async def _refresh(reconciler: Reconciler, queue: ChangeQueue) -> None:
    """Take up the stored identity when it changed."""

    async def work() -> None:
        if (fleet := reconciler.read_fleet()) is not None:
            await reconciler.site.reach.open(fleet)
            if reconciler.site.may_act():
                # A rotation waits for this before it lets the proxies refuse the former certificate.
                await announce_serial(reconciler.kube, fleet, reconciler.site.reach.serial)

    while True:
        reconciler.site.reach.expire()
        done = await attempt(reconciler, work)
        await queue.take(Key.IDENTITY, None if done else RETRY_SECONDS)


async def _patrol(reconciler: Reconciler, queue: ChangeQueue) -> None:
    """Read every proxy's hash once per period."""

    async def work() -> None:
        fleet = reconciler.read_fleet()
        if fleet is None or fleet.spec.paused:
            return
        if await reconciler.look(fleet, list(reconciler.site.roster), PATROL_SECONDS * 0.8):
            queue.add(Key.PROXIES)

    while True:
        started = time.monotonic()
        await attempt(reconciler, work)
        await asyncio.sleep(max(SHORTEST_PAUSE, PATROL_SECONDS - (time.monotonic() - started)))
