"""Draining is judged from counters: probes are no traffic, long requests are."""

from __future__ import annotations

from konverge.decide.draining import ConnectionSample, is_drained, is_quiet


def series(accepted: list[int], writing: list[int] | None = None, step: float = 0.5) -> list[ConnectionSample]:
    active = writing or [1] * len(accepted)
    return [ConnectionSample(i * step, a, w) for i, (a, w) in enumerate(zip(accepted, active, strict=True))]


def test_it_is_not_quiet_before_the_window_is_full() -> None:
    assert not is_quiet([], 4.0)
    assert not is_quiet(series([10, 10, 10]), 4.0)


def test_probes_are_no_traffic() -> None:
    assert is_quiet(series([10, 10, 11, 11, 12, 12, 12, 13, 13]), 4.0)


def test_new_connections_are_traffic() -> None:
    assert not is_quiet(series(list(range(10, 90, 8))), 4.0)


def test_only_the_window_counts() -> None:
    busy, calm = list(range(0, 100, 10)), [100] * 10
    assert is_quiet(series(busy + calm), 4.0)


def test_a_counter_that_went_back_is_a_restart() -> None:
    assert not is_quiet(series([100, 100, 100, 100, 0, 0, 0, 0, 0]), 4.0)


def test_a_request_that_runs_through_the_window_is_not_drained() -> None:
    assert is_drained(series([5] * 9, [1, 9, 4, 1, 7, 2, 3, 1, 2]), 4.0)
    assert not is_drained(series([5] * 9, [2, 9, 4, 2, 7, 2, 3, 2, 2]), 4.0)
