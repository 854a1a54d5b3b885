"""Gateway API durations (GEP-2257): ``1h30m``, ``10s``, ``500ms``."""

from __future__ import annotations

import re

_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_DURATION = re.compile(r"(?:\d{1,5}(?:h|ms|m|s)){1,4}", re.ASCII)
_PIECE = re.compile(r"(\d+)(h|ms|m|s)", re.ASCII)


def parse_duration(text: str | None) -> int | None:
    """Return milliseconds; None where the text is absent or no duration."""
    if not text or not _DURATION.fullmatch(text):
        return None
    return sum(int(number) * _MILLISECONDS[unit] for number, unit in _PIECE.findall(text))
