"""What the parts of the controller share: one fleet, what is known of it, and the work that is under way for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from konverge.controller.aiming import Aim
from konverge.controller.reaching import Reach
from konverge.controller.roster import Member, Roster
from konverge.controller.stating import States
from konverge.controller.watching import Sources
from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient
from konverge.model.condition import Outcome
from konverge.model.proxy import ProxyOutcome
from konverge.operate.clock import Clock
from konverge.operate.onboarding import write_gate

log = logging.getLogger(__name__)

FAILURE_PAUSE = 0.2
LONGEST_PAUSE = 5.0
"""Seconds before what failed is looked at again: doubled with each failure in a row, up to the longest."""
MOST_KNOWN = 1000
"""Revisions that are remembered by their hash; stored are fewer, and an older one is a foreign configuration."""
EXPECTED = frozenset({"NotLeading", "ProxyUnreachable"})
"""Reasons that are no failure of ours and too common to be logged each time."""


class Known(dict[str, int]):
    """Hashes of the fleet's revisions to their numbers; of too many those that were met last are kept."""

    def __setitem__(self, content: str, number: int) -> None:
        self.pop(content, None)
        super().__setitem__(content, number)
        if len(self) > MOST_KNOWN:
            del self[next(iter(self))]


@dataclass(slots=True)
class Counters:
    """What the controller has done since it started; shown by /metrics."""

    compiled: int = 0
    revisions: int = 0
    syncs: int = 0
    onboarded: int = 0
    drifted: int = 0
    failures: int = 0


@dataclass(slots=True)
class Site:
    """One fleet as the controller sees it."""

    kube: KubeClient
    sources: Sources
    clock: Clock
    may_act: Callable[[], bool]
    aim: Aim
    roster: Roster
    reach: Reach
    states: States
    counters: Counters = field(default_factory=Counters)
    known: Known = field(default_factory=Known)
    """The fleet's revisions as far as this process met them."""
    last_error: str = ""
    stopping: bool = False
    _failures: int = 0
    _work: set[asyncio.Task[None]] = field(default_factory=set)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside everything else; its failure is logged, and its end looked at."""
        task = asyncio.create_task(self._guard(work))
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        task.add_done_callback(lambda _: work.close())  # for what is cancelled before its first step
        return task

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
            self._failures = 0
        except KonvergeError as error:
            self.note_error(error)
            await self._pause()
        except Exception:
            self.note_fault()
            await self._pause()
        finally:
            self.sources.wake()

    async def _pause(self) -> None:
        self._failures += 1
        # The exponent is bounded too: a float overflows at 2^1024, which a fleet that fails reaches in an hour.
        await asyncio.sleep(min(FAILURE_PAUSE * 2.0 ** min(self._failures - 1, 10), LONGEST_PAUSE))

    async def finish(self) -> None:
        """Wait for everything that is under way."""
        while self._work:
            await asyncio.wait(set(self._work))

    async def abandon(self) -> None:
        """Stop everything that is under way: somebody else acts from now on."""
        work = list(self._work)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)

    async def follow_gate(self, member: Member, into_traffic: bool | None, outcome: Outcome) -> None:
        """Open or close the gate of a member where that is not what it is; None leaves it as it is."""
        if into_traffic is None or into_traffic == member.open or not self.may_act():
            return
        await write_gate(self.kube, member.proxy, into_traffic, outcome, self.clock)
        member.open = into_traffic
        proxy = member.proxy
        if into_traffic:
            self.counters.onboarded += 1
            self.states.tell_proxy(proxy, "Onboarded", f"it is in traffic: {outcome.message}")
        else:
            self.states.tell_proxy(
                proxy, "TakenOut", f"it is out of traffic: {outcome.message}", "Warning", outcome.hint
            )
        way = "into" if into_traffic else "out of"
        log.info("proxy %s/%s goes %s traffic: %s", proxy.namespace, proxy.name, way, outcome.message)

    def note_error(self, error: KonvergeError) -> None:
        """Count and show a failure of the controller's own work."""
        self.counters.failures += 1
        self.last_error = error.message
        log.warning("fleet %s: %s: %s", self.states.name, error.reason, error.message)

    def note_fault(self) -> None:
        """Count and show the exception at hand: a fault of ours in one piece of work must not end the others."""
        self.counters.failures += 1
        log.exception("fleet %s: a piece of work failed", self.states.name)

    def note_failures(self, outcomes: list[ProxyOutcome]) -> None:
        """Count and show what proxies failed at."""
        for outcome in outcomes:
            if not outcome.ok and outcome.outcome.reason not in EXPECTED:
                self.counters.failures += 1
                log.warning("proxy %s: %s: %s", outcome.proxy, outcome.outcome.reason, outcome.outcome.message)
