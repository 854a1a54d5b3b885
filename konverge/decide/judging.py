"""Judges a wave by its own metrics, compared with the time before the push; pure.

Counters are those of Kong's Prometheus plugin. Nothing is concluded from fewer requests than the fleet's analysis
asks for, before or after: a verdict without numbers would be a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from konverge.model.condition import Outcome
from konverge.model.counters import Counters
from konverge.model.fleet import Analysis

HINT = "reference/proxy-reasons.md"


@dataclass(frozen=True, slots=True)
class Sample:
    """The traffic of one proxy: in the time before the push, and since."""

    proxy: str
    baseline: Counters
    since: Counters


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the metrics of a wave say. ``proxies`` are those that speak against the configuration."""

    harmful: bool
    outcome: Outcome
    proxies: tuple[str, ...] = ()

    @property
    def conclusive(self) -> bool:
        """Whether there was enough traffic to conclude anything."""
        return self.outcome.reason != "MetricsInconclusive"


def choose_baseline(started: Counters | None, before: Counters, analysis: Analysis) -> Counters:
    """Return the traffic before a push: of this sync so far where that is enough, else since the proxy started."""
    recent = before.since(started) if started is not None else Counters()
    return recent if max(recent.requests, recent.latency_count) >= analysis.min_requests else before


def judge_wave(samples: Sequence[Sample], analysis: Analysis) -> Judgement:
    """Judge the wave as a whole, then each proxy by itself; the sentence names the numbers."""
    total = Sample("the wave", _sum(s.baseline for s in samples), _sum(s.since for s in samples))
    if found := _judge(total, analysis):
        worst = tuple(s.proxy for s in samples if _judge(s, analysis)) or tuple(s.proxy for s in samples)
        return Judgement(True, found, worst)
    harmed = [(sample.proxy, found) for sample in samples if (found := _judge(sample, analysis))]
    if harmed:
        return Judgement(True, harmed[0][1], tuple(proxy for proxy, _ in harmed))
    if not _enough(total.baseline.requests, total.since.requests, analysis) and not _enough(
        total.baseline.latency_count, total.since.latency_count, analysis
    ):
        message = (
            f"{total.since.requests:.0f} requests since the push and {total.baseline.requests:.0f} before it:"
            f" nothing is concluded from fewer than {analysis.min_requests}"
        )
        return Judgement(False, _outcome("MetricsInconclusive", message))
    return Judgement(False, _outcome("MetricsHealthy", _describe_errors(total)))


def _sum(parts: Iterable[Counters]) -> Counters:
    return sum(parts, start=Counters())


def _judge(sample: Sample, analysis: Analysis) -> Outcome | None:
    """Return what speaks against the configuration on one sample."""
    before, since = sample.baseline, sample.since
    grown = since.error_share - before.error_share
    if _enough(before.requests, since.requests, analysis) and grown > analysis.max_error_increase:
        limit = f"may grow by {analysis.max_error_increase:.1%}"
        return _outcome("ErrorsIncreased", f"{sample.proxy}: {_describe_errors(sample)}; it {limit}")
    slower = since.mean_latency > before.mean_latency * analysis.max_latency_factor > 0
    if _enough(before.latency_count, since.latency_count, analysis) and slower:
        message = (
            f"{sample.proxy}: the mean latency is {since.mean_latency:.1f} ms over {since.latency_count:.0f} requests"
            f" and was {before.mean_latency:.1f} ms before; {analysis.max_latency_factor:g} times that is let pass"
        )
        return _outcome("LatencyIncreased", message)
    return None


def _enough(before: float, since: float, analysis: Analysis) -> bool:
    return min(before, since) >= analysis.min_requests


def _describe_errors(sample: Sample) -> str:
    before, since = sample.baseline, sample.since
    return (
        f"{since.errors:.0f} of {since.requests:.0f} answers are 5xx ({since.error_share:.1%}),"
        f" {before.error_share:.1%} of {before.requests:.0f} before"
    )


def _outcome(reason: str, message: str) -> Outcome:
    anchors = {
        "MetricsHealthy": "metrics-healthy",
        "MetricsInconclusive": "metrics-inconclusive",
        "ErrorsIncreased": "errors-increased",
        "LatencyIncreased": "latency-increased",
    }
    return Outcome(reason=reason, message=message, hint=f"{HINT}#{anchors[reason]}")
