"""Counts outcomes while the run goes on and turns them into the report."""

from __future__ import annotations

import asyncio
import bisect
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from konverge.lab.load.histogram import Histogram, merged
from konverge.lab.load.outcomes import Ending, Outcome
from konverge.lab.load.plan import LoadPlan
from konverge.lab.load.report import (
    BEHIND_MS,
    ClassReport,
    Connections,
    Counts,
    FailureSample,
    Latency,
    Lines,
    LoadReport,
    Messages,
    PhaseReport,
    Requests,
    Schedule,
)


@dataclass(slots=True)
class Tally:
    """Endings, kinds of failure and latencies of one group of requests."""

    endings: Counter[Ending] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    latency: Histogram = field(default_factory=Histogram)

    def add(self, outcome: Outcome) -> None:
        """Count one outcome; a failed one without a latency adds none."""
        self.endings[outcome.ending] += 1
        if outcome.ending is Ending.FAILED:
            self.kinds[outcome.kind] += 1
        else:
            self.latency.add(outcome.latency)

    def counts(self) -> dict[str, Any]:
        """Return the fields of :class:`Counts`."""
        return {
            "total": self.endings.total(),
            "ok": self.endings[Ending.OK],
            "retried_on_stale_connection": self.endings[Ending.RETRIED],
            "closed_gracefully": self.endings[Ending.CLOSED_GRACEFULLY],
            "failed": self.endings[Ending.FAILED],
            "by_kind": dict(self.kinds.most_common()),
        }


def latency_fields(histogram: Histogram) -> dict[str, float]:
    """Return the fields of :class:`Latency`, rounded to a microsecond."""
    fields = {
        "mean_ms": histogram.mean_ms(),
        "p50_ms": histogram.percentile_ms(0.5),
        "p90_ms": histogram.percentile_ms(0.9),
        "p99_ms": histogram.percentile_ms(0.99),
        "p99_9_ms": histogram.percentile_ms(0.999),
        "max_ms": histogram.max_ms(),
    }
    return {name: round(value, 3) for name, value in fields.items()}


@dataclass(slots=True)
class _Phase:
    name: str
    begins: float
    tally: Tally = field(default_factory=Tally)


class Recorder:
    """Everything that a run has seen; the clock is the event loop's, the wall clock is read once."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self.begins = asyncio.get_running_loop().time()
        self._wall = datetime.now(UTC)
        self._phases = [_Phase(plan.phase, self.begins)]
        self.classes = {item.name: Tally() for item in plan.classes}
        self._kinds = {item.name: item.kind for item in plan.classes}
        self._targets: dict[str, Tally] = {}
        self._samples: list[FailureSample] = []
        self.lag = Histogram()
        self.round_trips = Histogram()
        self.messages = Messages()
        self.lines = Lines()

    @property
    def phase(self) -> str:
        """The name of the current phase."""
        return self._phases[-1].name

    def mark(self, name: str, moment: float) -> None:
        """Begin a phase at ``moment``; a name that was used before is continued in its own block."""
        self._phases.append(_Phase(name, moment))

    def add(self, outcome: Outcome) -> None:
        """Count a finished request or session."""
        phase = self._phase_at(outcome.intended)
        phase.tally.add(outcome)
        self.classes[outcome.class_name].add(outcome)
        self._targets.setdefault(outcome.target, Tally()).add(outcome)
        if outcome.ending is Ending.FAILED and len(self._samples) < self._plan.samples:
            self._samples.append(self._sample(outcome, phase.name))

    def _phase_at(self, moment: float) -> _Phase:
        place = bisect.bisect_right(self._phases, moment, key=lambda phase: phase.begins)
        return self._phases[max(0, place - 1)]

    def _sample(self, outcome: Outcome, phase: str) -> FailureSample:
        offset = outcome.finished - self.begins
        return FailureSample(
            offset=round(offset, 4),
            intended=round(outcome.intended - self.begins, 4),
            wall=self._wall + timedelta(seconds=offset),
            class_name=outcome.class_name,
            target=outcome.target,
            phase=phase,
            kind=outcome.kind,
            detail=outcome.detail[:300],
        )

    def totals(self) -> Tally:
        """Return the sum over all classes."""
        whole = Tally(latency=merged(tally.latency for tally in self.classes.values()))
        for tally in self.classes.values():
            whole.endings.update(tally.endings)
            whole.kinds.update(tally.kinds)
        return whole

    def report(self, started: int, elapsed: float, connections: Connections) -> LoadReport:
        """Return the report of a run that has started ``started`` requests on schedule in ``elapsed`` seconds."""
        requests = Requests(
            **self.totals().counts(),
            by_class={
                name: ClassReport(**tally.counts(), **latency_fields(tally.latency), kind=self._kinds[name])
                for name, tally in self.classes.items()
            },
            by_target={name: Counts(**tally.counts()) for name, tally in sorted(self._targets.items())},
        )
        trips = Latency(**latency_fields(self.round_trips))
        return LoadReport(
            started=self._wall,
            seconds=round(elapsed, 3),
            requests=requests,
            failures=self._samples,
            phases=self._report_phases(elapsed),
            messages=self.messages.model_copy(update=trips.model_dump()),
            lines=self.lines,
            connections=connections,
            schedule=self._report_schedule(started, elapsed),
        )

    def _report_phases(self, elapsed: float) -> dict[str, PhaseReport]:
        ends = [phase.begins for phase in self._phases[1:]] + [self.begins + elapsed]
        tallies: dict[str, Tally] = {}
        spans: dict[str, tuple[float, float]] = {}
        for phase, end in zip(self._phases, ends, strict=True):
            tally = tallies.setdefault(phase.name, Tally())
            tally.endings.update(phase.tally.endings)
            tally.kinds.update(phase.tally.kinds)
            tally.latency.merge(phase.tally.latency)
            started, seconds = spans.get(phase.name, (phase.begins - self.begins, 0.0))
            spans[phase.name] = started, seconds + max(0.0, end - phase.begins)
        return {
            name: PhaseReport(
                **tally.counts(),
                **latency_fields(tally.latency),
                started=round(spans[name][0], 3),
                seconds=round(spans[name][1], 3),
            )
            for name, tally in tallies.items()
        }

    def _report_schedule(self, started: int, elapsed: float) -> Schedule:
        worst = self.lag.max_ms()
        behind = worst > BEHIND_MS
        note = (
            f"The generator itself was up to {worst:.0f} ms behind its schedule: latencies contain that."
            if behind
            else ""
        )
        return Schedule(
            planned_rate=self._plan.rate,
            achieved_rate=round(started / elapsed, 2) if elapsed > 0 else 0.0,
            p99_lag_ms=round(self.lag.percentile_ms(0.99), 3),
            max_lag_ms=round(worst, 3),
            fell_behind=behind,
            note=note,
        )
