"""Knows which configuration the fleet should run: what the sources come to, what is in force, what to return to.

What the sources come to is the *draft*. It is *settled* when a sync came to an end with it: then a revision is in
force for it, the stored draft itself, a fallback of it, or the last good one where it did harm.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from konverge.controller.watching import Sources
from konverge.errors import NotFound, VerificationFailed
from konverge.kube.client import KubeClient
from konverge.model.fleet import Fleet
from konverge.model.revision import Revision, RevisionOutcome
from konverge.operate.clock import Clock, utc_now
from konverge.operate.compiling import Compiled
from konverge.operate.remembering import Memory, load_memory
from konverge.operate.revisions import list_records, load_revision, store_revision

log = logging.getLogger(__name__)

HARMFUL_SECONDS = 300.0
"""Seconds until a draft that was stopped is tried on the canary again: what failed may have been the canary."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The revision in force for a draft, until a moment of the monotonic clock; None: for good."""

    draft: str
    revision: Revision
    until: float | None = None


class Aim:
    """The desired configuration of one fleet. Everything in it survives a restart, or is found again."""

    def __init__(self, kube: KubeClient, sources: Sources, clock: Clock = utc_now) -> None:
        self._kube = kube
        self._sources = sources
        self._clock = clock
        self.compiler = sources.compiler
        self.memory = Memory()
        self.draft: Revision | None = None
        """What should run; number 0 while it is not stored."""
        self.compiled: Compiled | None = None
        self.settled: Settled | None = None
        self.good: Revision | None = None
        """The last good revision, where its bytes are at hand."""
        self.recalled = False
        """Whether there is a draft, and it is known whether it did harm a moment ago."""
        self._cause = ""
        self._lost: set[int] = set()

    async def compile(self, fleet: Fleet) -> bool:
        """Bring the draft up to date; True where it is another one than before.

        A pinned revision is the draft whatever the sources say; NotFound where it does not exist.
        """
        before = self.draft
        if fleet.spec.pinned_revision:
            self.draft = await self._load(fleet, fleet.spec.pinned_revision)
        else:
            self.compiled = compiled = await self.compiler.compile(fleet, self._sources.objects)
            if before is None or before.hash != compiled.revision.hash:
                self.draft, self._cause = compiled.revision, compiled.cause
        assert self.draft is not None, "set above"
        return before is None or before.hash != self.draft.hash

    @property
    def revision(self) -> Revision | None:
        """The revision in force; None before the first one is settled."""
        return self.settled.revision if self.settled is not None else None

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to try: the draft was brought to its end, or is known to do harm."""
        settled, draft = self.settled, self.draft
        if settled is None or draft is None or settled.draft != draft.hash:
            return False
        return settled.until is None or time.monotonic() < settled.until

    def settle(self, draft: Revision, revision: Revision, *, harmful: bool = False) -> None:
        """Note what a sync of a draft came to; where it did harm, it is tried again after a while."""
        until = time.monotonic() + HARMFUL_SECONDS if harmful else None
        self.settled = Settled(draft.hash, revision, until)

    def unsettle(self) -> bool:
        """Have the draft tried again; False where it is known to do harm and its time has not come."""
        if self.settled is not None and self.settled.until is not None:
            return False
        self.settled = None
        return True

    async def store(self, fleet: Fleet, later: Callable[[Coroutine[Any, Any, None]], object]) -> Revision:
        """Store the draft and return it under its number; one that may need a fallback at once is left as it is.

        ``later`` takes what nobody has to wait for.
        """
        draft = self.draft
        assert draft is not None, "compile comes first"
        await load_memory(self._kube, fleet, self.memory)
        if draft.number or self.memory.broken:
            return draft
        stored = await store_revision(
            self._kube,
            fleet,
            draft,
            author="controller",
            reason=self._cause,
            sources=self._sources.versions(),
            previous=self.good,
            clock=self._clock,
            later=later,
        )
        if self.draft is draft:
            self.draft = stored
        log.info(
            "revision %d of fleet %s/%s: %d routes, hash %s",
            stored.number,
            fleet.namespace,
            fleet.name,
            stored.routes,
            stored.hash,
        )
        return stored

    async def find_good(self, fleet: Fleet) -> Revision | None:
        """Return the last good revision with its bytes; None where there is none yet, or it cannot be read."""
        number = fleet.status.last_good_revision
        if self.good is None and number and number not in self._lost:
            try:
                self.good = await self._load(fleet, number)
            except (NotFound, VerificationFailed) as error:
                log.error("fleet %s/%s: %s", fleet.namespace, fleet.name, error.message)
                self._lost.add(number)
        return self.good

    async def recall(self, fleet: Fleet) -> dict[str, int]:
        """Find out once, after a start, whether the draft is known to have done harm a moment ago.

        Returns the numbers of the stored revisions by hash; nothing the second time.
        """
        draft, good = self.draft, await self.find_good(fleet)
        if self.recalled or draft is None:
            return {}
        records = await list_records(self._kube, fleet)
        for record in records:
            if record.spec.hash != draft.hash or record.status.outcome is not RevisionOutcome.HARMFUL:
                continue
            since = record.status.since
            age = (self._clock() - since).total_seconds() if since is not None else HARMFUL_SECONDS
            if good is not None and good.hash != draft.hash and age < HARMFUL_SECONDS:
                left = min(HARMFUL_SECONDS - age, HARMFUL_SECONDS)
                self.settled = Settled(draft.hash, good, time.monotonic() + left)
                log.warning("revision %d did harm %.0f s ago, the last good one stays", record.number, age)
            break
        self.recalled = True
        return {record.spec.hash: record.number for record in reversed(records)}

    async def _load(self, fleet: Fleet, number: int) -> Revision:
        for known in (self.draft, self.good, self.revision):
            if known is not None and known.number == number:
                return known
        return await load_revision(self._kube, fleet, number)
