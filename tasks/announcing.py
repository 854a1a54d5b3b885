"""Tells the process that started a run how it goes: one JSON line each on standard output."""

from __future__ import annotations

import sys
from typing import Any

import orjson


def announce(line: dict[str, Any]) -> None:
    """Write one JSON line for the process that started us."""
    sys.stdout.buffer.write(orjson.dumps(line, default=str) + b"\n")
    sys.stdout.buffer.flush()
