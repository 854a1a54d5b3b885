"""Rolls a new draft out over whoever carries traffic, in waves; one roll-out at a time, the newest draft wins."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TypedDict

from konverge.controller.patrolling import Patrol
from konverge.controller.roster import Member
from konverge.controller.site import Site
from konverge.model.condition import Outcome
from konverge.model.fleet import Fleet
from konverge.model.proxy import ZERO_HASH, Proxy, ProxyStatus
from konverge.model.revision import Revision
from konverge.operate.clock import Clock
from konverge.operate.falling_back import Desired, sync_sources
from konverge.operate.ports import Gateways
from konverge.operate.quarantining import Quarantine
from konverge.operate.recording import Record
from konverge.operate.syncing import SyncReport, Verdict, sync_fleet
from konverge.translate.problems import Problem

log = logging.getLogger(__name__)


class Options(TypedDict):
    """What every push of the controller is told beside the revision."""

    clock: Clock
    previous: Revision | None
    superseded: Callable[[], bool]
    may_act: Callable[[], bool]
    quarantine: Quarantine
    record: Record


class Roller:
    """The roll-outs of one fleet."""

    def __init__(self, site: Site, patrol: Patrol) -> None:
        self._site = site
        self._patrol = patrol
        self._cold = True
        """Whether nothing was settled since the start: what proxies run may be as another process left it."""
        self._running: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether a roll-out is under way."""
        return self._running is not None and not self._running.done()

    async def start(self, fleet: Fleet) -> bool:
        """Start what is due; True where anything was done."""
        site = self._site
        if site.aim.is_settled or self.running:
            return False
        everybody = list(site.roster)
        free = [member for member in everybody if not member.busy]
        serving = [member for member in free if member.serving]
        if not serving and len(free) < len(everybody):
            return False  # newcomers are being visited: they will tell
        if not everybody:
            return await self._adopt(fleet)
        # Where nobody carries traffic the newcomers are the canary: their refusal finds the object to blame.
        members = serving or free
        gateways = await site.reach.open(fleet)
        for member in members:
            member.busy = True
        self._running = site.start(self._roll_out(fleet, gateways, members))
        return True

    async def _adopt(self, fleet: Fleet) -> bool:
        """Put the draft in force as it is: there is nobody who could be harmed, or say that it is refused."""
        stored = await self._store(fleet)
        if stored.number:
            self._put_in_force(stored)
        return bool(stored.number)

    def _put_in_force(self, stored: Revision) -> None:
        self._cold = False
        self._site.aim.settle(stored, stored)
        self._site.states.aim(stored)

    async def _store(self, fleet: Fleet) -> Revision:
        site = self._site
        before = site.aim.draft
        stored = await site.aim.store(fleet, site.start)
        site.counters.revisions += stored is not before
        if stored.number:
            site.known[stored.hash] = stored.number
        return stored

    async def _roll_out(self, fleet: Fleet, gateways: Gateways, members: Sequence[Member]) -> None:
        site = self._site
        try:
            draft = await self._store(fleet)
            chosen = await self._choose(fleet, gateways, members, draft)
            if members and not chosen:
                self._put_in_force(draft)
                return
            good = await site.aim.find_good(fleet)
            site.counters.syncs += 1
            site.states.aim(draft, judged=False)
            report = await self._push(fleet, gateways, chosen, draft, good)
        finally:
            for member in members:
                member.busy = False
        self._conclude(draft, report)

    async def _choose(
        self, fleet: Fleet, gateways: Gateways, members: Sequence[Member], draft: Revision
    ) -> Sequence[Member]:
        """Leave out whom a restart is no reason to push to: a roll-out is for a new revision."""
        restarted = self._cold and draft.number > 0 and draft.hash == fleet.status.current_hash
        if restarted and fleet.spec.drift == "report":
            return await self._patrol.spare(fleet, gateways, members, draft)
        return members

    async def _push(
        self, fleet: Fleet, gateways: Gateways, members: Sequence[Member], draft: Revision, good: Revision | None
    ) -> SyncReport:
        """Push the draft; a pinned revision as it is, also while the sources are in need of a fallback."""
        site, proxies = self._site, [member.proxy for member in members]
        options = Options(
            clock=site.clock,
            previous=good if good is not None and good.hash != draft.hash else None,
            superseded=lambda: site.stopping or not site.may_act() or self._is_outdated(draft),
            may_act=site.may_act,
            quarantine=site.roster.quarantine,
            record=self._record,
        )
        if fleet.spec.pinned_revision:
            return await sync_fleet(site.kube, fleet, gateways, draft, proxies, **options)
        desired = Desired(draft, site.sources.objects, "controller", self._problems(), site.sources.versions())
        return await sync_sources(site.kube, fleet, gateways, desired, proxies, memory=site.aim.memory, **options)

    def _is_outdated(self, draft: Revision) -> bool:
        newest = self._site.aim.draft
        return newest is not None and newest.hash != draft.hash

    def _problems(self) -> tuple[Problem, ...]:
        compiled = self._site.aim.compiled
        return compiled.problems if compiled is not None else ()

    def _conclude(self, draft: Revision, report: SyncReport) -> None:
        """Take what a roll-out came to."""
        site, outcome = self._site, report.outcome
        site.note_failures(list(report.outcomes))
        site.known[report.revision.hash] = report.revision.number
        if report.verdict is Verdict.SUPERSEDED or not site.may_act():
            log.info("fleet %s: %s", site.states.name, outcome.message)
            return
        if report.harmful:
            site.counters.failures += 1
            site.last_error = outcome.message
            log.error("fleet %s: %s: %s", site.states.name, outcome.reason, outcome.message)
            reason = "RevisionRolledBack" if report.verdict is Verdict.ROLLED_BACK else "RevisionHeld"
            site.states.tell_fleet(reason, outcome.message, "Warning", outcome.hint)
        elif any(one.ok for one in report.outcomes):
            log.info("fleet %s: %s", site.states.name, outcome.message)
            site.aim.good = report.revision
        self._cold = False
        site.states.tell_problems(report.problems or self._problems())
        site.aim.settle(draft, report.revision, harmful=report.harmful)
        harmful = report.harmful and report.revision.hash == draft.hash
        site.states.aim(report.revision, harmful=harmful, setback=report.setback)

    async def _record(self, proxy: Proxy, status: ProxyStatus) -> None:
        """Take the status of a proxy as soon as it was visited.

        A proxy without any configuration leaves the traffic; one that was not proven goes on with what it had.
        """
        member = self._site.roster.find(proxy)
        if member is not None:
            proven = status.synced and status.traffic_ready
            if proven and status.loaded_hash != member.verified:
                number = status.loaded_revision or 0
                log.info("proxy %s/%s: revision %d is loaded and routed", proxy.namespace, proxy.name, number)
            if proven:
                member.verified, member.healing, member.reported = status.loaded_hash, False, ""
            into = True if proven else False if status.loaded_hash == ZERO_HASH else None
            said = Outcome(reason=status.reason, message=status.message, hint=status.hint)
            await self._site.follow_gate(member, into, said)
        self._site.states.note(proxy, status)
