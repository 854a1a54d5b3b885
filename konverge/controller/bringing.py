"""Brings single proxies to the revision in force: newcomers, those that drifted, those that a roll-out passed by."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from konverge.controller.mending import Mender
from konverge.controller.roster import Member
from konverge.controller.site import Site
from konverge.decide.waving import may_continue
from konverge.model.fleet import Fleet
from konverge.model.proxy import Proxy, ProxyOutcome, ProxyStatus
from konverge.model.revision import Revision, RevisionOutcome
from konverge.operate.onboarding import judge_gate, onboard_proxies
from konverge.operate.ports import Gateways
from konverge.operate.revisions import record_verdict

log = logging.getLogger(__name__)


class Bringer:
    """The onboarding of one fleet: batches, each of whoever is due, none waiting for another."""

    def __init__(self, site: Site, mender: Mender) -> None:
        self._site = site
        self._mender = mender

    async def start(self, fleet: Fleet) -> bool:
        """Start on whoever is due, as one batch; True where there was somebody."""
        site = self._site
        revision = site.aim.revision or await site.aim.find_good(fleet)
        if revision is None:
            return False
        now = time.monotonic()
        due = [
            member
            for member in site.roster
            if self._needs(member, revision) and site.roster.is_due(member, now, revision.hash)
        ]
        if not due:
            return False
        gateways = await site.reach.open(fleet)
        for member in due:
            member.busy = True
        site.start(self._bring(fleet, gateways, revision, due))
        return True

    def _needs(self, member: Member, revision: Revision) -> bool:
        """Whether a member is out of traffic, has to be set right, or was passed by a roll-out that has ended."""
        if member.reported or member.busy or member.owes:
            return False
        if member.healing or not (member.serving or member.open):
            return True
        return member.verified != revision.hash and self._site.aim.is_settled

    async def _bring(self, fleet: Fleet, gateways: Gateways, revision: Revision, members: Sequence[Member]) -> None:
        site = self._site

        async def gate(proxy: Proxy, outcome: ProxyOutcome) -> None:
            if (member := site.roster.find(proxy)) is not None:
                await site.follow_gate(member, judge_gate(outcome), outcome.outcome)

        async def record(proxy: Proxy, status: ProxyStatus) -> None:
            self._release(proxy, status, revision)

        try:
            outcomes = await onboard_proxies(
                site.kube,
                fleet,
                gateways,
                revision,
                [member.proxy for member in members],
                site.clock,
                may_act=site.may_act,
                record=record,
                gate=gate,
            )
        finally:
            for member in members:
                member.busy = False
        site.note_failures(outcomes)
        now = time.monotonic()
        for member, outcome in zip(members, outcomes, strict=True):
            site.roster.note(member, outcome, now, revision.hash)
            self._mender.note(member, outcome.outcome)
        await self._judge(fleet, revision, outcomes)

    def _release(self, proxy: Proxy, status: ProxyStatus, revision: Revision) -> None:
        """Take the status of a proxy that was brought up."""
        site = self._site
        member = site.roster.find(proxy)
        if member is not None and status.synced and status.traffic_ready:
            log.info("proxy %s/%s: revision %d is loaded and routed", proxy.namespace, proxy.name, revision.number)
            member.verified, member.healing, member.reported = status.loaded_hash, False, ""
        site.states.note(proxy, status)

    async def _judge(self, fleet: Fleet, revision: Revision, outcomes: Sequence[ProxyOutcome]) -> None:
        """Judge a revision by proxies that carry no traffic; one that somebody runs already is not to blame."""
        site = self._site
        good = await site.aim.find_good(fleet)
        if good is not None and good.hash == revision.hash:
            return
        if any(member.verified == revision.hash for member in site.roster):
            await self._prove(fleet, revision)
        elif not may_continue(outcomes, fleet.spec.rollout):
            refused = next(outcome for outcome in outcomes if not outcome.ok)
            site.last_error = f"Revision {revision.number}: proxy {refused.proxy}: {refused.outcome.message}"
            log.error("fleet %s: %s", site.states.name, site.last_error)
            if site.aim.unsettle():
                # The roll-out visits them again, at once: it knows what to leave out and what to return to.
                for member in site.roster:
                    site.roster.quarantine.recovered(member.proxy)

    async def _prove(self, fleet: Fleet, revision: Revision) -> None:
        site = self._site
        if site.aim.revision is None or site.aim.revision.hash != revision.hash or not site.may_act():
            return
        site.aim.good = revision
        good = RevisionOutcome.GOOD
        text = f"revision {revision.number} is loaded and routed"
        await record_verdict(site.kube, fleet, revision.number, good, "Onboarded", text, clock=site.clock)
