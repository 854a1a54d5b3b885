from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konverge.lab.load.histogram import LONGEST, Histogram, bucket_of, merged, middle_of


@given(st.integers(min_value=0, max_value=LONGEST))
def test_a_bucket_stands_for_its_values_within_one_256th(value: int) -> None:
    assert abs(middle_of(bucket_of(value)) - value) <= value / 256


@given(st.integers(min_value=0, max_value=10**7))
def test_buckets_keep_the_order(value: int) -> None:
    assert bucket_of(value) <= bucket_of(value + 1) <= bucket_of(value) + 1


@given(st.lists(st.floats(min_value=0, max_value=100), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_the_ranked_value(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    ranked = sorted(int(value * 1e6) for value in values)[math.ceil(len(values) * share) - 1]
    assert histogram.percentile_ms(share) * 1e3 == pytest.approx(ranked, rel=1 / 256, abs=0.01)
    assert histogram.max_ms() == max(int(value * 1e6) for value in values) / 1e3


@given(st.lists(st.floats(min_value=0, max_value=10)), st.lists(st.floats(min_value=0, max_value=10)))
def test_merging_equals_counting_together(left: list[float], right: list[float]) -> None:
    parts = [Histogram(), Histogram()]
    whole = Histogram()
    for part, values in zip(parts, (left, right), strict=True):
        for value in values:
            part.add(value)
            whole.add(value)
    assert merged(parts).to_json() == whole.to_json()
    assert Histogram.from_json(whole.to_json()).to_json() == whole.to_json()
    assert merged(parts).count == len(left) + len(right)


def test_an_empty_histogram_says_zero() -> None:
    histogram = Histogram()
    assert (histogram.percentile_ms(0.99), histogram.mean_ms(), histogram.max_ms()) == (0.0, 0.0, 0.0)


def test_odd_values_are_clamped() -> None:
    histogram = Histogram()
    histogram.add(-1.0)
    histogram.add(1e9)
    assert histogram.count == 2
    assert histogram.maximum == LONGEST


def test_json_of_another_shape_is_refused() -> None:
    with pytest.raises(TypeError, match="not a histogram"):
        Histogram.from_json({"counts": 3, "total_us": 1, "max_us": 1})
