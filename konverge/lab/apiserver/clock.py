"""The server's clock, which a fault can stop or move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Clock:
    """Tells the time of day in UTC; ``stop`` freezes it, ``move`` shifts it."""

    def __init__(self) -> None:
        self._stopped: datetime | None = None
        self._offset = timedelta()

    def now(self) -> datetime:
        """Return the current time as the server believes it to be."""
        return self._stopped or datetime.now(UTC) + self._offset

    def stop(self) -> None:
        """Freeze the clock at its current reading."""
        self._stopped = self.now()

    def start(self) -> None:
        """Let a frozen clock run again, from the real time."""
        self._stopped = None
        self._offset = timedelta()

    def move(self, seconds: float) -> None:
        """Shift the clock by ``seconds``."""
        self._offset += timedelta(seconds=seconds)

    def stamp(self) -> str:
        """Return the time as metadata carries it: whole seconds, ``2006-01-02T15:04:05Z``."""
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time; ValueError where it is none."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
