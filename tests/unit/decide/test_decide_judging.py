"""Metrics speak against a configuration only with numbers behind them, compared with the time before."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konverge.decide.judging import Sample, choose_baseline, judge_wave
from konverge.model.counters import Counters
from konverge.model.fleet import Analysis

ANALYSIS = Analysis(min_requests=50, max_error_increase=0.05, max_latency_factor=3.0)


def traffic(requests: float = 1000, errors: float = 0, mean: float = 10.0) -> Counters:
    return Counters(requests, errors, requests, requests * mean)


def sample(baseline: Counters, since: Counters, proxy: str = "p0") -> Sample:
    return Sample(proxy, baseline, since)


@pytest.mark.parametrize(
    ("baseline", "since", "reason"),
    [
        (traffic(), traffic(100), "MetricsHealthy"),
        (traffic(), traffic(100, 5), "MetricsHealthy"),
        (traffic(), traffic(100, 6), "ErrorsIncreased"),
        (traffic(1000, 500), traffic(100, 54), "MetricsHealthy"),
        (traffic(1000, 500), traffic(100, 56), "ErrorsIncreased"),
        (traffic(), traffic(49, 49), "MetricsInconclusive"),
        (traffic(49), traffic(100, 100), "MetricsInconclusive"),
        (traffic(), traffic(100, mean=30), "MetricsHealthy"),
        (traffic(), traffic(100, mean=31), "LatencyIncreased"),
        (traffic(mean=0), traffic(100, mean=31), "MetricsHealthy"),
        (Counters(), Counters(), "MetricsInconclusive"),
        (Counters(1000), Counters(100), "MetricsHealthy"),
    ],
)
def test_one_proxy(baseline: Counters, since: Counters, reason: str) -> None:
    judgement = judge_wave([sample(baseline, since)], ANALYSIS)
    assert judgement.outcome.reason == reason
    assert judgement.harmful == (reason in ("ErrorsIncreased", "LatencyIncreased"))
    assert judgement.conclusive == (reason != "MetricsInconclusive")


def test_the_sentence_names_the_numbers() -> None:
    judgement = judge_wave([sample(traffic(1000, 10), traffic(200, 60))], ANALYSIS)
    assert "60 of 200 answers are 5xx (30.0%), 1.0% of 1000 before" in judgement.outcome.message
    slow = judge_wave([sample(traffic(), traffic(200, mean=50))], ANALYSIS)
    assert "50.0 ms over 200 requests and was 10.0 ms before" in slow.outcome.message


def test_many_quiet_proxies_are_loud_together() -> None:
    few = [sample(traffic(20), traffic(20, 10), f"p{n}") for n in range(5)]
    judgement = judge_wave(few, ANALYSIS)
    assert judgement.outcome.reason == "ErrorsIncreased"
    assert "the wave" in judgement.outcome.message
    assert len(judgement.proxies) == 5


def test_one_bad_proxy_does_not_vanish_among_good_ones() -> None:
    wave = [sample(traffic(), traffic(1000), f"p{n}") for n in range(20)]
    judgement = judge_wave([*wave, sample(traffic(), traffic(60, 30), "bad")], ANALYSIS)
    assert judgement.harmful
    assert judgement.proxies == ("bad",)


def test_no_samples_conclude_nothing() -> None:
    assert judge_wave([], ANALYSIS).outcome.reason == "MetricsInconclusive"


def test_a_restarted_proxy_counts_from_zero() -> None:
    assert traffic(30, 3).since(traffic(1000, 10)) == traffic(30, 3)
    assert traffic(1030, 13).since(traffic(1000, 10)) == traffic(30, 3)


def test_the_baseline_is_the_recent_past_where_that_is_enough() -> None:
    started, before = traffic(1000, 500), traffic(1100, 500)
    assert choose_baseline(started, before, ANALYSIS).error_share == 0.0
    assert choose_baseline(before, before, ANALYSIS) == before
    assert choose_baseline(None, before, ANALYSIS) == before


counts = st.integers(0, 10_000)


@given(before=st.tuples(counts, counts), since=st.tuples(counts, counts))
def test_fewer_errors_are_never_harm(before: tuple[int, int], since: tuple[int, int]) -> None:
    one = traffic(before[0] + before[1], before[1])
    two = traffic(since[0] + since[1], since[1])
    judgement = judge_wave([sample(one, two)], ANALYSIS)
    if judgement.harmful:
        assert two.error_share > one.error_share + ANALYSIS.max_error_increase
        assert min(one.requests, two.requests) >= ANALYSIS.min_requests


def test_every_reason_leads_somewhere() -> None:
    page = (Path(__file__).parents[3] / "docs/reference/proxy-reasons.md").read_text()
    for found in (
        judge_wave([sample(traffic(), traffic())], ANALYSIS),
        judge_wave([], ANALYSIS),
        judge_wave([sample(traffic(), traffic(100, 90))], ANALYSIS),
        judge_wave([sample(traffic(), traffic(100, mean=90))], ANALYSIS),
    ):
        name, anchor = found.outcome.hint.split("#")
        assert name == "reference/proxy-reasons.md"
        assert f'<a id="{anchor}">' in page
