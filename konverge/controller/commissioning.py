"""What the controller does for a fleet whose ``spec.runner`` is ``prefect``: it watches and stores, Prefect pushes.

One run at a time: a roll-out first, then whoever is out of traffic as one batch. What came of a run is read from the
ProxyInstances and the fleet; the run's own state only tells that it has ended. What keeps a run from its start or its
end is told by the condition ``RunnerBlocked`` of the fleet.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from konverge.controller.aiming import HARMFUL_SECONDS
from konverge.controller.attending import Attendant, Patience
from konverge.controller.delegating import ONBOARDING, SYNC, Delegate, Run
from konverge.controller.mending import Mender
from konverge.controller.roster import Member
from konverge.controller.site import Site
from konverge.errors import KonvergeError
from konverge.model.condition import Outcome, find_condition, set_condition
from konverge.model.fleet import Fleet, FleetStatus
from konverge.model.revision import Revision, RevisionOutcome
from konverge.operate.fleets import list_instances, load_fleet, update_fleet_status
from konverge.operate.revisions import list_records, load_revision

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often a run is looked at while it is under way, and Prefect while it does not answer."""
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 60.0
"""Seconds until a pod that an onboarding run did not bring into traffic is named again, and until a sync whose
process is gone is asked for again; doubled each time."""
OPENING_SECONDS = 10.0
"""How long a pod that a run has brought up may take to be seen in traffic before it is named again."""
FAILED_PAUSE = 15.0
"""Seconds until a revision whose run failed, but did no harm, is tried again; doubled each time."""
GATHER_SECONDS, LONGEST_GATHER = 2.0, 5.0
"""Newcomers are one batch when each comes within this time after the one before, all of them within the longer one: a
run costs seconds, and pods that one scaling made are seen one after another."""
BLOCKED = "RunnerBlocked"
"""Condition of the fleet: Prefect does not do what is to be done."""
HINT = "reference/errors.md#run-failed"


class Commissioner:
    """The runs of one fleet."""

    def __init__(self, site: Site, mender: Mender, delegate: Delegate | None = None) -> None:
        self._site = site
        self._mender = mender
        self._delegate = delegate or Delegate()
        self._attendant: Attendant | None = None
        self._draft: Revision | None = None
        self._wanted, self._attempt = "", 0
        """The hash that a sync was asked for last, and the attempt that is next."""
        self._failures, self._retry_at = 0, 0.0
        self._held: list[Member] = []
        self._asked_at = float("-inf")
        self._waits = False
        """Whether there is something to do that cannot be asked for yet."""
        self._told: tuple[str, str] | None = None

    @property
    def busy(self) -> bool:
        """Whether a run is under way, or one is to be asked for in a moment."""
        return self._attendant is not None or self._waits

    async def start(self, fleet: Fleet) -> bool:
        """Look after the run that is under way, or ask for the next one; True where one was asked for.

        Where Prefect does not answer, or refuses, the fleet's status says so and the next call tries again.
        """
        try:
            return await self._advance(fleet)
        except KonvergeError as error:
            if not error.reason.startswith("Prefect"):
                raise
            self._waits = True
            await self._tell(fleet, Outcome(reason=error.reason, message=error.message, hint=error.hint))
            return False

    async def rest(self, fleet: Fleet) -> None:
        """Let go of everything: the fleet has another runner."""
        self._attendant, self._waits = None, False
        self._release()
        await self._tell(fleet, None)

    async def _advance(self, fleet: Fleet) -> bool:
        site = self._site
        self._waits = False
        if (attendant := self._attendant) is not None:
            trouble = await attendant.look()
            if not attendant.run.ended:
                self._hold_for(attendant.run)
                await self._tell(fleet, trouble)
                return False
            await self._conclude(fleet, attendant.run)
            self._attendant = None
        if site.aim.is_settled or time.monotonic() < self._retry_at:
            self._waits = not site.aim.is_settled
            started = await self._ask_onboarding(fleet)
        else:
            started = await self._ask_sync(fleet)
        await self._tell(fleet, None)
        return started

    async def _ask_sync(self, fleet: Fleet) -> bool:
        site = self._site
        draft = await site.aim.store(fleet, site.start)
        if draft.number:
            site.known[draft.hash] = draft.number
        if not site.roster.members:
            if draft.number:
                site.aim.settle(draft, draft)
                site.states.aim(draft)
            return False
        if draft.hash != self._wanted:
            self._wanted, self._attempt, self._failures = draft.hash, 0, 0
        done = self._attempt == 0 and draft.hash == fleet.status.current_hash
        run = await self._ask(lambda attempt: self._delegate.sync(fleet, draft, attempt), self._attempt, done=done)
        site.counters.syncs += 1
        self._draft = draft
        self._attend(fleet, run)
        return True

    async def _ask(self, ask: Callable[[int], Awaitable[Run]], attempt: int, *, done: bool = False) -> Run:
        """Ask for a run, and again where that is one that has ended: another process has asked for it before.

        ``done`` says that the fleet is where a completed run would bring it. Attempts need no order, only a number
        that is free: it is found in a few steps.
        """
        run = await ask(attempt)
        while run.ended and not (done and run.state == "COMPLETED"):
            attempt = attempt * 2 + 1
            run = await ask(attempt)
        return run

    async def _ask_onboarding(self, fleet: Fleet) -> bool:
        revision, now = self._site.aim.revision, time.monotonic()
        if revision is None:
            return False
        needy = [member for member in self._site.roster if self._needs(member, revision)]
        due = [member for member in needy if now >= member.knock_at]
        if not due or self._are_coming(due, now):
            self._waits = self._waits or bool(needy)
            return False
        attempt = max(member.knocks for member in due) + 1
        pods = [member.proxy.name for member in due]
        run = await self._ask(lambda number: self._delegate.onboard(fleet, revision, pods, number), attempt)
        for member in due:
            member.knocks += 1
        self._attend(fleet, run)
        self._hold(due)
        return True

    def _attend(self, fleet: Fleet, run: Run) -> None:
        self._asked_at = time.monotonic()
        self._attendant = Attendant(self._site.kube, self._delegate, fleet, run, Patience.read(os.environ))

    def _are_coming(self, due: Sequence[Member], now: float) -> bool:
        """Whether more newcomers may follow: somebody came a moment ago, and after the last run was asked for."""
        since = [member.since for member in due if not member.knocks and member.since > self._asked_at]
        return bool(since) and now - max(since) < GATHER_SECONDS and now - min(since) < LONGEST_GATHER

    def _needs(self, member: Member, revision: Revision) -> bool:
        if member.reported or member.owes or member.busy:
            return False
        return member.healing or not member.serving or member.verified != revision.hash

    def _hold_for(self, run: Run) -> None:
        """Let nobody else visit the proxies once a sync has begun: what it pushed is no drift."""
        if run.flow == SYNC and run.state != "SCHEDULED":
            self._hold(list(self._site.roster))

    def _hold(self, members: Sequence[Member]) -> None:
        for member in members:
            if not member.busy:
                member.busy = True
                self._held.append(member)

    def _release(self) -> None:
        for member in self._held:
            member.busy = False
        self._held.clear()

    async def _conclude(self, fleet: Fleet, run: Run) -> None:
        """Read what a run came to."""
        site = self._site
        log.info("fleet %s: run %s of %s ended: %s", site.states.name, run.id, run.flow, run.state)
        await site.states.load()
        for name, status in (await list_instances(site.kube, fleet)).items():
            for member in site.roster:
                if member.proxy.name != name:
                    continue
                self._mender.note(member, Outcome(reason=status.reason))
                if status.synced and status.traffic_ready:
                    member.verified, member.healing, member.knocks = status.loaded_hash, False, 0
                    if run.flow == ONBOARDING:
                        # Its gate is open; the kubelet and the EndpointSlice follow.
                        member.knock_at = time.monotonic() + OPENING_SECONDS
        if run.flow != SYNC or self._draft is None:
            self._pause()
            self._release()
        elif run.state == "CRASHED":
            self._interrupt(run)
        else:
            await self._settle(fleet, self._draft, run)
            self._release()
        await site.states.summarise()

    def _pause(self) -> None:
        """Leave whoever was not brought into traffic alone for a while."""
        for member in self._held:
            if member.knocks:
                member.knock_at = time.monotonic() + min(
                    FIRST_PAUSE * 2.0 ** min(member.knocks - 1, 10), LONGEST_PAUSE
                )

    def _interrupt(self, run: Run) -> None:
        """Have a sync whose process is gone done again: it goes on where it was. Until then nobody is let go of."""
        pause = min(FIRST_PAUSE * 2.0 ** min(self._failures, 10), LONGEST_PAUSE)
        self._failures, self._retry_at = self._failures + 1, time.monotonic() + pause
        self._attempt += 1
        self._note_failure(f"run {run.id} of {run.flow} ended CRASHED; another one goes on in {pause:.0f} s")

    async def _settle(self, fleet: Fleet, draft: Revision, run: Run) -> None:
        """Take what is in force after a roll-out: the draft, its fallback, or the last good revision."""
        site = self._site
        status = (await load_fleet(site.kube, fleet.name, fleet.namespace)).status
        number = status.current_revision or draft.number
        revision = draft if number == draft.number else await load_revision(site.kube, fleet, number)
        harmless = run.state == "FAILED" and not await self._did_harm(fleet, draft)
        self._attempt += 1
        site.known[revision.hash] = revision.number
        failed = run.state != "COMPLETED"
        if failed:
            self._note_failure(f"run {run.id} of {run.flow} ended {run.state}; revision {number} is in force")
        site.aim.good = None
        site.aim.settle(draft, revision, harmful=failed)
        if harmless and site.aim.settled is not None:
            pause = min(FAILED_PAUSE * 2.0 ** min(self._failures, 10), HARMFUL_SECONDS)
            site.aim.settled = replace(site.aim.settled, until=time.monotonic() + pause)
        self._failures = self._failures + 1 if failed else 0
        site.states.aim(revision, harmful=failed and not harmless and revision is draft)

    async def _did_harm(self, fleet: Fleet, draft: Revision) -> bool:
        """Whether the sync has put it down that the revision is to blame."""
        records = await list_records(self._site.kube, fleet)
        return any(r.number == draft.number and r.status.outcome is RevisionOutcome.HARMFUL for r in records)

    def _note_failure(self, text: str) -> None:
        self._site.last_error = text
        self._site.counters.failures += 1
        self._site.states.tell_fleet("RunFailed", text, "Warning", HINT)

    async def _tell(self, fleet: Fleet, trouble: Outcome | None) -> None:
        """Say in the fleet's status, once, what Prefect keeps from being done, and when it is over."""
        site, told = self._site, (trouble.reason, trouble.message) if trouble is not None else ("", "")
        held = find_condition(fleet.status.conditions, BLOCKED)
        if told == self._told or (
            self._told is None and trouble is None and (held is None or held.status == "False")
        ):
            return
        said = trouble or Outcome(reason="RunnerWorks", message="Prefect does what is asked for")

        def change(status: FleetStatus) -> FleetStatus:
            conditions = set_condition(status.conditions, BLOCKED, trouble is not None, said, site.clock())
            return status.model_copy(update={"conditions": conditions})

        if trouble is not None:
            site.last_error = trouble.message
            site.counters.failures += 1
            log.warning("fleet %s: %s: %s", site.states.name, trouble.reason, trouble.message)
        site.states.tell_fleet(said.reason, said.message, "Warning" if trouble else "Normal", said.hint)
        await update_fleet_status(site.kube, fleet, change)
        self._told = told
