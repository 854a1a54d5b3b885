"""Maintenance windows: time zones, nights on which clocks change, and a delay that never leaves the window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konverge.decide.windows import Start, find_opening, is_open, plan_start
from konverge.errors import Invalid
from konverge.model.fleet import Window


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NIGHT = Window(start="02:00", minutes=120, timezone="Europe/Berlin")
SUNDAY = Window(days=("Sun",), start="22:00", minutes=240, timezone="UTC")


@pytest.mark.parametrize(
    ("now", "opened"),
    [
        ("2026-01-10T00:59:59", False),
        ("2026-01-10T01:00:00", True),
        ("2026-01-10T02:59:59", True),
        ("2026-01-10T03:00:00", False),
        ("2026-07-10T00:00:00", True),
        ("2026-07-10T02:00:00", False),
    ],
)
def test_the_wall_clock_of_the_zone_counts(now: str, opened: bool) -> None:
    assert is_open((NIGHT,), utc(now)) is opened


def test_a_window_that_crosses_midnight_belongs_to_the_day_on_which_it_opens() -> None:
    assert is_open((SUNDAY,), utc("2026-11-30T01:59:00"))  # a Monday
    assert not is_open((SUNDAY,), utc("2026-11-30T02:00:00"))
    assert not is_open((SUNDAY,), utc("2026-11-28T23:00:00"))


def test_the_next_opening_is_told() -> None:
    opening = find_opening((SUNDAY,), utc("2026-11-30T02:00:00"))
    assert opening is not None
    assert opening.opens == utc("2026-12-06T22:00:00")
    assert opening.closes == utc("2026-12-07T02:00:00")


def test_without_windows_any_time_is_right() -> None:
    assert find_opening((), utc("2026-01-01T00:00:00")) is None
    assert plan_start((), utc("2026-01-01T00:00:00"), 600, 0.5) == Start(delay=300)


@pytest.mark.parametrize(
    ("day", "opens"),
    [
        # 2026-03-29: 02:00 to 03:00 does not exist; it is read with the offset before the change.
        ("2026-03-29T00:00:00", "2026-03-29T01:00:00"),
        # 2026-10-25: 02:00 comes twice; the first one counts.
        ("2026-10-24T20:00:00", "2026-10-25T00:00:00"),
    ],
)
def test_nights_on_which_clocks_change(day: str, opens: str) -> None:
    opening = find_opening((NIGHT,), utc(day))
    assert opening is not None
    assert opening.opens == utc(opens)
    assert opening.closes - opening.opens == timedelta(minutes=120)


def test_the_longest_of_overlapping_windows_counts() -> None:
    short = Window(start="01:00", minutes=30)
    opening = find_opening((short, Window(start="00:00", minutes=600)), utc("2026-01-01T01:10:00"))
    assert opening is not None
    assert opening.closes == utc("2026-01-01T10:00:00")


def test_outside_a_run_is_postponed_and_inside_its_delay_stays_inside() -> None:
    assert plan_start((SUNDAY,), utc("2026-11-28T00:00:00"), 600, 0.5).postponed_until == utc("2026-11-29T22:00:00")
    assert plan_start((SUNDAY,), utc("2026-11-30T01:59:00"), 3600, 0.5) == Start(delay=30)


@given(
    st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    st.integers(0, 23),
    st.integers(1, 10080),
    st.sampled_from([(), ("Mon",), ("Tue", "Sat")]),
    st.floats(0, 1),
)
def test_a_start_is_always_inside_an_opening(
    moment: datetime, zone: str, hour: int, minutes: int, days: tuple[str, ...], share: float
) -> None:
    now = moment.replace(tzinfo=UTC)
    window = Window(days=days, start=f"{hour:02}:00", minutes=minutes, timezone=zone)  # type: ignore[arg-type]
    start = plan_start((window,), now, 7200, share)
    begins = start.postponed_until or now + timedelta(seconds=start.delay)
    assert begins >= now
    opening = find_opening((window,), begins)
    assert opening is not None
    assert opening.opens <= begins <= opening.closes


def test_an_unknown_zone_is_named() -> None:
    with pytest.raises(Invalid, match="'Mars/Olympus' is no time zone") as caught:
        is_open((Window(timezone="Mars/Olympus"),), utc("2026-01-01T00:00:00"))
    assert caught.value.reason == "UnknownTimezone"
