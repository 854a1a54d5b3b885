"""What the controller does for a fleet whose ``spec.runner`` is ``prefect``: it watches and stores, Prefect pushes.

One run at a time: a roll-out first, then whoever is out of traffic as one batch. What came of a run is read from the
ProxyInstances and the fleet; the run's own state only tells that it has ended.
"""

from __future__ import annotations

import logging
import time

from konverge.controller.delegating import SYNC, Delegate, Run
from konverge.controller.mending import Mender
from konverge.controller.roster import Member
from konverge.controller.site import Site
from konverge.model.condition import Outcome
from konverge.model.fleet import Fleet
from konverge.model.revision import Revision
from konverge.operate.fleets import list_instances, load_fleet
from konverge.operate.revisions import load_revision

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often a run is looked at while it is under way."""
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 60.0
"""Seconds until a pod that an onboarding run did not bring into traffic is named again; doubled each time."""


class Commissioner:
    """The runs of one fleet."""

    def __init__(self, site: Site, mender: Mender, delegate: Delegate | None = None) -> None:
        self._site = site
        self._mender = mender
        self._delegate = delegate or Delegate()
        self._run: Run | None = None
        self._draft: Revision | None = None
        self._attempts: dict[str, int] = {}

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        return self._run is not None

    async def start(self, fleet: Fleet) -> bool:
        """Look after the run that is under way, or ask for the next one; True where one was asked for."""
        if self._run is not None:
            self._run = await self._delegate.look(self._run)
            if not self._run.ended:
                return False
            run, self._run = self._run, None
            await self._conclude(fleet, run)
        if not self._site.aim.is_settled:
            return await self._ask_sync(fleet)
        return await self._ask_onboarding(fleet)

    async def _ask_sync(self, fleet: Fleet) -> bool:
        site = self._site
        draft = await site.aim.store(fleet, site.start)
        if not draft.number:
            return False
        site.known[draft.hash] = draft.number
        if not site.roster.members:
            site.aim.settle(draft, draft)
            site.states.aim(draft)
            return False
        site.counters.syncs += 1
        self._draft = draft
        self._run = await self._delegate.sync(fleet, draft, self._attempts.get(draft.hash, 0))
        return True

    async def _ask_onboarding(self, fleet: Fleet) -> bool:
        revision, now = self._site.aim.revision, time.monotonic()
        if revision is None:
            return False
        due = [member for member in self._site.roster if self._needs(member, revision) and now >= member.knock_at]
        if not due:
            return False
        for member in due:
            pause = min(FIRST_PAUSE * 2.0**member.knocks, LONGEST_PAUSE)
            member.knocks, member.knock_at = member.knocks + 1, now + pause
        attempt = max(member.knocks for member in due)
        self._run = await self._delegate.onboard(fleet, revision, [m.proxy.name for m in due], attempt)
        return True

    def _needs(self, member: Member, revision: Revision) -> bool:
        if member.reported or member.owes or member.busy:
            return False
        return member.healing or not member.serving or member.verified != revision.hash

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
        if run.flow == SYNC and self._draft is not None:
            await self._settle(fleet, self._draft, run)

    async def _settle(self, fleet: Fleet, draft: Revision, run: Run) -> None:
        """Take what is in force after a roll-out: the draft, its fallback, or the last good revision."""
        site = self._site
        self._attempts[draft.hash] = self._attempts.get(draft.hash, 0) + 1
        status = (await load_fleet(site.kube, fleet.name, fleet.namespace)).status
        number = status.current_revision or draft.number
        revision = draft if number == draft.number else await load_revision(site.kube, fleet, number)
        site.known[revision.hash] = revision.number
        failed = run.state != "COMPLETED"
        if failed:
            text = f"run {run.id} of {run.flow} ended {run.state}; revision {revision.number} is in force"
            site.last_error = text
            site.counters.failures += 1
            site.states.tell_fleet("RunFailed", text, "Warning")
        site.aim.good = None
        site.aim.settle(draft, revision, harmful=failed)
        site.states.aim(revision, harmful=failed and revision is draft)
