"""Looks whether proxies still run what was verified on them: one small request per proxy over kept connections."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence

from konverge.controller.roster import Member
from konverge.controller.site import Site
from konverge.decide.drifting import judge_drift
from konverge.errors import KonvergeError
from konverge.model.condition import set_condition
from konverge.model.drift import Drift, DriftAction, DriftKind
from konverge.model.fleet import Fleet
from konverge.model.proxy import Phase, ProxyOutcome
from konverge.model.revision import Revision
from konverge.operate.gathering import gather_all
from konverge.operate.ports import Gateways
from konverge.operate.recording import describe_proxy

log = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
"""A proxy that does not tell its hash within this time is silent."""
MOST_OUT = 0.5
"""The share of the serving proxies that drift may take out of traffic at once; what runs old still runs."""


class Patrol:
    """Finds drift among the members and says what follows from it."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def look(self, fleet: Fleet, gateways: Gateways, members: Sequence[Member], spread: float = 0.0) -> bool:
        """Read the hash of every member, spread over ``spread`` seconds; True where somebody has to be set right."""
        order = random.sample(list(members), len(members))
        checks = [
            self._look_at(fleet, gateways, member, spread * number / len(order))
            for number, member in enumerate(order)
        ]
        drifts = [found for found in await asyncio.gather(*checks) if found is not None]
        if fleet.spec.mode == "db":
            # What the database holds says nothing about what a proxy routes by; it is set right for all at once.
            return bool(drifts) and self._site.aim.unsettle()
        await self._take_out(drifts, sum(1 for member in members if member.serving))
        return bool(drifts)

    async def spare(
        self, fleet: Fleet, gateways: Gateways, members: Sequence[Member], revision: Revision
    ) -> list[Member]:
        """Return the members that may be pushed to after a restart, when the revision is none that is new.

        Where drift is only reported, a serving proxy with a foreign configuration keeps it, and is reported. One with
        an older revision is not spared: the roll-out that would have reached it may have ended half way.
        """
        hashes = await gather_all(_read_hash(gateways, member) for member in members)
        spared = set()
        for member, loaded in zip(members, hashes, strict=True):
            drift = judge_drift(
                loaded, revision.hash, self._site.known, policy=fleet.spec.drift, serving=member.serving
            )
            if drift.kind is DriftKind.FOREIGN and drift.action is DriftAction.REPORT:
                self._report(member, loaded or "", drift, revision)
                spared.add(member)
        return [member for member in members if member not in spared]

    async def _look_at(
        self, fleet: Fleet, gateways: Gateways, member: Member, after: float
    ) -> tuple[Member, Drift] | None:
        await asyncio.sleep(after)
        if member.busy or not (desired := self.find_desired(member)):
            return None
        loaded = await _read_hash(gateways, member)
        if member.busy or self.find_desired(member) != desired:
            return None  # somebody visited it meanwhile: what was read is not what is
        known = self._site.known
        drift = judge_drift(loaded, desired, known, policy=fleet.spec.drift, serving=member.serving)
        return self._judge(member, loaded, drift)

    def find_desired(self, member: Member) -> str:
        """Return the hash that a member should have; "" for one that is still to be visited."""
        revision = self._site.aim.revision
        return member.verified or (revision.hash if member.reported and revision is not None else "")

    def _judge(self, member: Member, loaded: str | None, drift: Drift) -> tuple[Member, Drift] | None:
        if drift.kind is DriftKind.IN_SYNC and member.reported:
            # Somebody set it right by hand: it is visited, to see whether it routes by it.
            member.reported, member.verified = "", ""
        if not drift.kind.drifted or member.reported == loaded:
            return None
        self._report(member, loaded or "", drift)
        if drift.action is not DriftAction.HEAL:
            return None
        member.reported, member.verified, member.healing = "", "", True
        return member, drift

    def _report(self, member: Member, loaded: str, drift: Drift, revision: Revision | None = None) -> None:
        """Say what was found: in the log, as an event, in the status; once."""
        member.reported = loaded
        self._site.counters.drifted += 1
        proxy, outcome = member.proxy, drift.outcome
        log.warning("proxy %s/%s drifted: %s: %s", proxy.namespace, proxy.name, outcome.reason, outcome.message)
        self._site.states.tell_proxy(proxy, "Drifted", outcome.message, "Warning", outcome.hint)
        self._note(member, loaded, drift, revision)

    def _note(self, member: Member, loaded: str, drift: Drift, revision: Revision | None) -> None:
        proxy, outcome, now = member.proxy, drift.outcome, self._site.clock()
        before = self._site.states.statuses.get(proxy.name)
        if before is None and revision is not None:
            unseen = ProxyOutcome(proxy=proxy.name, ok=False, outcome=outcome, phase=Phase.DISCOVERED)
            before = describe_proxy(proxy, revision, unseen, self._site.clock)
        if before is None:
            return
        fresh = before.model_copy(
            update={
                "loaded_hash": loaded,
                "loaded_revision": drift.revision or None,
                "synced": False,
                "reason": outcome.reason,
                "message": outcome.message,
                "hint": outcome.hint,
                "conditions": set_condition(before.conditions, "ConfigSynced", False, outcome, now),
            }
        )
        self._site.states.note(proxy, fresh)

    async def _take_out(self, drifts: Sequence[tuple[Member, Drift]], serving: int) -> None:
        """Take who drifted out of traffic; of many at once only as many as the others can stand in for.

        One without any configuration answers nothing: that one always goes.
        """
        room = int(serving * MOST_OUT)
        for member, drift in sorted(drifts, key=lambda found: found[1].kind is not DriftKind.LOST):
            if not member.open or not (drift.kind is DriftKind.LOST or room > 0):
                continue
            room -= 1
            await self._site.follow_gate(member, False, drift.outcome)


async def _read_hash(gateways: Gateways, member: Member) -> str | None:
    """Return the loaded hash, or None where the proxy does not answer: silence is no drift."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await gateways.reach(member.proxy).loaded_hash()
    except (KonvergeError, TimeoutError):
        return None
