"""Maintenance windows: whether scheduled work may start now, and when it may next; pure.

A window opens at a time of the wall clock of its time zone and stays open for a number of minutes that really pass.
So on the night when clocks go forward a window that opens in the hour that does not exist opens when that hour would
have begun (PEP 495 reads such a time with the offset before the change), and on the night when they go back it opens
once, at the first of the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from konverge.errors import Invalid
from konverge.model.fleet import Window

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
LONGEST_LOOK = timedelta(days=8)
"""A window opens once a week at the least."""


@dataclass(frozen=True, slots=True)
class Opening:
    """One time in which work may start: from ``opens`` until just before ``closes``, both in UTC."""

    opens: datetime
    closes: datetime


def find_opening(windows: Sequence[Window], now: datetime) -> Opening | None:
    """Return the opening that ``now`` is in, or else the next; None where any time is right.

    Of several that are open the one that stays open longest is returned.
    """
    if not windows:
        return None
    openings = [opening for window in windows for opening in _list_openings(window, now)]
    current = [opening for opening in openings if opening.opens <= now < opening.closes]
    if current:
        return max(current, key=lambda opening: opening.closes)
    return min((opening for opening in openings if opening.opens > now), key=lambda opening: opening.opens)


def is_open(windows: Sequence[Window], now: datetime) -> bool:
    """Tell whether scheduled work may start."""
    opening = find_opening(windows, now)
    return opening is None or opening.opens <= now


@dataclass(frozen=True, slots=True)
class Start:
    """When a scheduled run begins: after ``delay`` seconds, or not before ``postponed_until``."""

    delay: float = 0.0
    postponed_until: datetime | None = None


def plan_start(windows: Sequence[Window], now: datetime, jitter_seconds: float, share: float) -> Start:
    """Return when a scheduled run may begin. ``share`` is a random number of 0 to 1.

    The delay spreads fleets that share a schedule; it never leads out of the window that is open now.
    """
    opening = find_opening(windows, now)
    if opening is not None and opening.opens > now:
        return Start(postponed_until=opening.opens)
    delay = max(0.0, jitter_seconds) * share
    if opening is not None:
        delay = min(delay, (opening.closes - now).total_seconds() * share)
    return Start(delay=delay)


def _list_openings(window: Window, now: datetime) -> Iterable[Opening]:
    """Yield the openings of a window that touch the days around ``now``."""
    zone = _zone(window.timezone)
    today = now.astimezone(zone).date()
    length = timedelta(minutes=window.minutes)
    first = today - length - timedelta(days=1)
    for number in range((today + LONGEST_LOOK - first).days + 1):
        day = first + timedelta(days=number)
        if not window.days or DAYS[day.weekday()] in window.days:
            opens = _local(day, window.start, zone)
            yield Opening(opens, opens + length)


def _local(day: date, start: str, zone: ZoneInfo) -> datetime:
    hours, minutes = start.split(":")
    return datetime.combine(day, time(int(hours), int(minutes)), tzinfo=zone).astimezone(UTC)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Invalid(
            f"spec.identity.windows: {name!r} is no time zone; write an IANA name such as Europe/Berlin",
            reason="UnknownTimezone",
            hint="reference/errors.md#unknown-timezone",
        ) from None
