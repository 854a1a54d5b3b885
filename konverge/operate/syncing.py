"""Brings every proxy of a fleet to one revision: in waves, verified, judged, the sick ones isolated.

Per wave: push, read back, probe, soak, judge; then go on, hold, or go back. The controller, the flow and the command
all call :func:`sync_fleet`, or :func:`konverge.operate.falling_back.sync_sources` where sources are at hand.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypedDict, TypeVar, Unpack

from konverge.decide.judging import Judgement
from konverge.decide.waving import Wave, find_refusals, may_continue, plan_waves, proves_something
from konverge.errors import CheckRefused, VerificationFailed
from konverge.kube.client import KubeClient
from konverge.model.condition import Outcome
from konverge.model.fleet import Fleet
from konverge.model.proxy import Proxy, ProxyOutcome
from konverge.model.revision import Revision, RevisionOutcome
from konverge.operate.clock import Clock, utc_now
from konverge.operate.databases import visit_database
from konverge.operate.judging import Watcher
from konverge.operate.ports import Gateways
from konverge.operate.quarantining import Quarantine
from konverge.operate.recording import (
    Record,
    count_proxies,
    describe_proxy,
    record_outcome,
    summarise_fleet,
)
from konverge.operate.revisions import record_verdict
from konverge.operate.visiting import visit_all
from konverge.translate import Problem

__all__ = [
    "Observer",
    "SyncReport",
    "Verdict",
    "WaveReport",
    "count_proxies",
    "record_outcome",
    "refuse_paused",
    "summarise_fleet",
    "sync_fleet",
]

CANARIES = 3
"""Waves in a row that may be canaries because nobody in the one before could be reached."""
Result = TypeVar("Result")


class Verdict(StrEnum):
    """How a sync ended."""

    COMPLETED = "Completed"
    """Every wave was visited; single proxies may be sick."""
    SUPERSEDED = "Superseded"
    """A newer revision waits: this one ended at the boundary of a wave."""
    HELD = "Held"
    """The revision is harmful; the waves after it keep what they had, and so do those before it."""
    ROLLED_BACK = "RolledBack"
    """The revision is harmful; whoever had got it has the last good one again."""


@dataclass(frozen=True, slots=True)
class WaveReport:
    """One wave: who was in it, what became of each, and what the metrics said."""

    wave: Wave
    revision: int
    outcomes: tuple[ProxyOutcome, ...]
    judgement: Judgement | None = None


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync came to.

    ``revision`` is the one in force afterwards: the pushed one, its fallback, or the last good one where the pushed
    one did harm. ``outcome`` says why it ended as it did; ``problems`` are the objects that were left out.
    """

    revision: Revision
    verdict: Verdict
    outcome: Outcome
    waves: tuple[WaveReport, ...] = ()
    went_back: tuple[ProxyOutcome, ...] = ()
    skipped: tuple[str, ...] = ()
    """Sick proxies that were not due yet."""
    pushed: int = 0
    """Number of the revision that this verdict is about."""
    problems: tuple[Problem, ...] = ()
    fallback: str = ""
    """What the revision in force leaves out of the sources, where it is a fallback."""

    @property
    def setback(self) -> Outcome | None:
        """Why the sources are not in force as they are; None where they are."""
        if self.harmful:
            return self.outcome
        if not self.fallback:
            return None
        message = f"revision {self.revision.number} is a {self.fallback}; the events of the objects say why"
        return Outcome(reason="Fallback", message=message, hint="explanation/sync.md#fallback")

    @property
    def outcomes(self) -> tuple[ProxyOutcome, ...]:
        """What became of each proxy that was visited, the way back included."""
        latest = {o.proxy: o for report in self.waves for o in report.outcomes}
        return tuple((latest | {o.proxy: o for o in self.went_back}).values())

    @property
    def harmful(self) -> bool:
        """Whether the revision was stopped."""
        return self.verdict in (Verdict.HELD, Verdict.ROLLED_BACK)

    def raise_for_harm(self) -> None:
        """Raise VerificationFailed, naming wave, proxy and cause, where the revision was stopped."""
        if self.harmful:
            raise VerificationFailed(self.outcome.message, reason=self.outcome.reason, hint=self.outcome.hint)


class Observer:
    """Is told of a sync while it runs; override what is of interest.

    Raising stops the sync. :meth:`run_step` surrounds every piece of work that lasts: the flow makes a task of each.
    """

    async def run_step(self, name: str, work: Callable[[], Awaitable[Result]]) -> Result:  # noqa: ARG002
        """Do a piece of work: ``canary``, ``wave-2``, ``going-back``, ``fallback-1``."""
        return await work()

    async def note_plan(self, revision: Revision, waves: Sequence[Wave]) -> None:
        """Take note of the waves that are to come; told again where they change."""

    async def note_wave(self, report: WaveReport) -> None:
        """Take note of a wave that has ended."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a roll-out ended before its last wave."""

    outcome: Outcome
    superseded: bool = False
    refusals: tuple[ProxyOutcome, ...] = ()
    proven: bool = False
    """Whether somebody runs the revision already."""


@dataclass(slots=True)
class Run:
    """One sync on its way; holds what all its steps need and what they found."""

    kube: KubeClient
    fleet: Fleet
    gateways: Gateways
    proxies: Sequence[Proxy]
    clock: Clock = utc_now
    superseded: Callable[[], bool] | None = None
    may_act: Callable[[], bool] | None = None
    observer: Observer = field(default_factory=Observer)
    quarantine: Quarantine = field(default_factory=Quarantine)
    record: Record | None = None
    waves: list[WaveReport] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    async def roll_out(self, revision: Revision) -> Stop | None:
        """Push a revision wave by wave; returns why it stopped, or None where it went through."""
        rollout, now = self.fleet.spec.rollout, time.monotonic()
        due = [proxy for proxy in self.proxies if self.quarantine.due(proxy, now, revision.hash)]
        self.skipped = [proxy.name for proxy in self.proxies if proxy not in due]
        watcher = Watcher(self.gateways, rollout)
        await watcher.start(self.kube, self.fleet, revision, due)
        waves, canaries, proven = deque(self._cut(due)), 1, False
        good = self._was_good(revision)
        await self.observer.note_plan(revision, tuple(waves))
        while waves:
            if self.superseded is not None and self.superseded():
                return Stop(_superseded(revision), superseded=True, proven=proven)
            if self.may_act is not None and not self.may_act():
                return Stop(_stopped_leading(revision), superseded=True, proven=proven)
            report = await self._run_wave(revision, waves.popleft(), watcher)
            proven = proven or any(outcome.ok for outcome in report.outcomes)
            stop = find_harm(report, revision, rollout.max_failures)
            # What the fleet ran well is not to blame where one canary is sick: others are asked first.
            excused = good and (proven or canaries < CANARIES) and bool(waves or proven)
            if stop is not None and not excused:
                return replace(stop, proven=proven)
            unproven = stop is not None or not proves_something(report.outcomes)
            if not proven and waves and canaries < CANARIES and unproven:
                rest = [proxy for wave in waves for proxy in wave.proxies]
                waves, canaries = deque(self._cut(rest, report.wave.index + 1)), canaries + 1
                await self.observer.note_plan(revision, tuple(waves))
        return None

    def _cut(self, proxies: Sequence[Proxy], first: int = 0) -> tuple[Wave, ...]:
        """Cut proxies into waves; those of a database are one, since what is written is for everybody."""
        if self.fleet.spec.mode == "db":
            return (Wave(first, "database", tuple(proxies)),) if proxies else ()
        return plan_waves(proxies, self.fleet.spec.rollout, first)

    async def _run_wave(self, revision: Revision, wave: Wave, watcher: Watcher) -> WaveReport:
        async def work() -> WaveReport:
            before = await watcher.read(wave.proxies)
            outcomes = await self.visit(revision, wave.proxies)
            judgement = None
            if may_continue(outcomes, self.fleet.spec.rollout):
                judgement = await watcher.judge(wave.proxies, outcomes, before)
            return WaveReport(wave, revision.number, tuple(outcomes), judgement)

        report = await self.observer.run_step(wave.name, work)
        self.waves.append(report)
        await self.observer.note_wave(report)
        return report

    async def visit(self, revision: Revision, proxies: Sequence[Proxy]) -> list[ProxyOutcome]:
        """Bring proxies to a revision and write down what became of each."""

        async def note(proxy: Proxy, outcome: ProxyOutcome) -> None:
            self.quarantine.note(proxy, outcome, time.monotonic(), revision.hash)
            if outcome.outcome.reason == "NotLeading":
                return
            if self.record is not None:
                await self.record(proxy, describe_proxy(proxy, revision, outcome, self.clock))
            else:
                await record_outcome(self.kube, self.fleet, proxy, revision, outcome, self.clock)

        if self.fleet.spec.mode == "db":
            return await visit_database(
                self.kube, self.fleet, self.gateways, revision, proxies, note=note, clock=self.clock
            )
        concurrency = self.fleet.spec.rollout.concurrency
        return await visit_all(self.gateways, revision, proxies, concurrency, note=note, may_act=self.may_act)

    async def go_back(self, previous: Revision) -> tuple[ProxyOutcome, ...]:
        """Bring everybody who was visited to the last good revision; those who have it are only verified."""
        visited = {outcome.proxy for report in self.waves for outcome in report.outcomes}
        affected = [proxy for proxy in self.proxies if proxy.name in visited]
        return tuple(await self.observer.run_step("going-back", lambda: self.visit(previous, affected)))

    async def conclude(self, revision: Revision, stop: Stop | None, previous: Revision | None) -> SyncReport:
        """Go back where that is due, write the verdict on the revision, and report."""
        report = SyncReport(
            revision,
            Verdict.COMPLETED,
            _completed(revision),
            tuple(self.waves),
            (),
            tuple(self.skipped),
            revision.number,
        )
        if stop is not None and stop.superseded:
            report = replace(report, verdict=Verdict.SUPERSEDED, outcome=stop.outcome)
        elif stop is not None and previous is not None and self.fleet.spec.rollout.on_harm == "rollback":
            back = await self.go_back(previous)
            outcome = _describe_way_back(stop.outcome, back, previous)
            report = replace(report, revision=previous, verdict=Verdict.ROLLED_BACK, outcome=outcome, went_back=back)
        elif stop is not None:
            report = replace(report, verdict=Verdict.HELD, outcome=stop.outcome, revision=previous or revision)
        await self._record_verdict(report, revision)
        return report

    def _was_good(self, revision: Revision) -> bool:
        return self.fleet.status.last_good_hash == revision.hash

    async def _record_verdict(self, report: SyncReport, revision: Revision) -> None:
        reason, message = report.outcome.reason, report.outcome.message
        if report.harmful and self._was_good(revision) and len(find_refusals(report.outcomes)) <= 1:
            return  # one proxy's word does not outweigh what the fleet ran well
        if report.harmful:
            verdict = RevisionOutcome.HARMFUL
        elif report.verdict is Verdict.SUPERSEDED:
            verdict = RevisionOutcome.SUPERSEDED
        elif any(outcome.ok for outcome in report.outcomes):
            verdict = RevisionOutcome.GOOD
        else:
            return
        await record_verdict(self.kube, self.fleet, report.pushed, verdict, reason, message, clock=self.clock)


class Options(TypedDict, total=False):
    """What a sync may be told beside what is pushed to whom."""

    clock: Clock
    superseded: Callable[[], bool] | None
    """Asked before each wave: whether a newer revision waits."""
    may_act: Callable[[], bool] | None
    """Asked before each wave and each push: whether this process still acts for the fleet."""
    observer: Observer
    quarantine: Quarantine
    """Outlives single calls: proxies in it that are not due are left out and named in the report."""
    record: Record | None
    """Takes the status of each proxy; without it each is written at once."""


def prepare_run(
    kube: KubeClient, fleet: Fleet, gateways: Gateways, proxies: Sequence[Proxy], options: Options
) -> Run:
    """Return a run of which nothing is done yet; CheckRefused where the fleet is paused."""
    refuse_paused(fleet)
    return Run(kube, fleet, gateways, proxies, **options)


async def sync_fleet(
    kube: KubeClient,
    fleet: Fleet,
    gateways: Gateways,
    revision: Revision,
    proxies: Sequence[Proxy],
    *,
    previous: Revision | None = None,
    **options: Unpack[Options],
) -> SyncReport:
    """Push a stored revision in waves and report what became of it; CheckRefused where the fleet is paused.

    A harmful revision is no exception but a verdict: whoever got it gets ``previous`` again, where there is one and
    the fleet's ``rollout.onHarm`` says so. ``options`` are those of :class:`Options`.
    """
    run = prepare_run(kube, fleet, gateways, proxies, options)
    stop = await run.roll_out(revision)
    return await run.conclude(revision, stop, previous)


def refuse_paused(fleet: Fleet) -> None:
    """Raise CheckRefused for a paused fleet."""
    if fleet.spec.paused:
        raise CheckRefused(
            f"ProxyFleet {fleet.namespace}/{fleet.name} is paused (spec.paused); nothing is pushed",
            reason="Paused",
            hint="reference/errors.md#paused",
        )


def find_harm(report: WaveReport, revision: Revision, budget: int) -> Stop | None:
    """Return what stops a roll-out after a wave: more refusals than the budget, or metrics that speak against it."""
    refusals = find_refusals(report.outcomes)
    head = f"Revision {revision.number} stopped at {report.wave.name}"
    if len(refusals) > budget:
        first = refusals[0]
        said = first.outcome.message.removeprefix(f"{first.proxy}: ")
        message = f"{head}: proxy {first.proxy}: {said}"
        return Stop(first.outcome.model_copy(update={"message": message}), refusals=tuple(refusals))
    if report.judgement is not None and report.judgement.harmful:
        found = report.judgement.outcome
        return Stop(found.model_copy(update={"message": f"{head}: {found.message}"}))
    return None


def _completed(revision: Revision) -> Outcome:
    return Outcome(
        reason="Completed",
        message=f"revision {revision.number} was brought to every proxy that can be reached",
        hint="explanation/sync.md",
    )


def _superseded(revision: Revision) -> Outcome:
    return Outcome(
        reason="Superseded",
        message=f"a newer revision waits: revision {revision.number} ended at the boundary of a wave",
        hint="explanation/sync.md#superseding",
    )


def _stopped_leading(revision: Revision) -> Outcome:
    return Outcome(
        reason="NotLeading",
        message=f"another process acts for this fleet now: revision {revision.number} ended between two waves",
        hint="reference/proxy-reasons.md#not-leading",
    )


def _describe_way_back(stopped: Outcome, back: Sequence[ProxyOutcome], previous: Revision) -> Outcome:
    good = sum(1 for outcome in back if outcome.ok)
    text = f"{stopped.message}; {good} of {len(back)} proxies have revision {previous.number} again"
    return stopped.model_copy(update={"message": text})
