"""Faults that can be switched on while a stand-in runs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(slots=True)
class Faults:
    """What goes wrong. Times in seconds; counts are used up, -1 is for ever; ``*_on`` fields name a listener."""

    delay: float = 0.0
    """Every answer on ``delay_on`` comes this much later."""
    delay_on: str = "admin"
    refuse_on: str = ""
    """Connections to this listener are reset as soon as they are made."""
    reset_after: int = -1
    """POST /config: reset the connection after this many bytes of the body."""
    truncate_after: int = -1
    """POST /config: cut the answer after this many bytes and close."""
    busy: int = 0
    """POST /config: answer 429 this many times."""
    stored_500: int = 0
    """POST /config: load it, then answer 500."""
    exiting_503: int = 0
    """POST /config: answer 503 without loading."""
    wrong_hash: int = 0
    """POST /config: load it and answer 201, but report another hash."""
    hang: int = 0
    """Requests on ``hang_on`` that never get an answer."""
    hang_on: str = "admin"
    load_extra: float = 0.0
    """A load takes this much longer."""
    router_extra: float = 0.0
    """Routing with a new configuration comes this much later; -1: never (a failed rebuild)."""
    clock_offset: float = 0.0
    """The node's clock is off by this: timestamps and the validity of client certificates."""
    lmdb_full: int = 0
    """POST /config: answer 413 "does not fit in LMDB" this many times."""
    write_500: int = 0
    """With a database, writing requests: answer 500 without writing, this many times."""
    write_stored_500: int = 0
    """With a database, writing requests: write, then answer 500."""
    write_delay: float = 0.0
    """With a database, every writing request takes this much longer."""
    proxy_status: int = 0
    """The proxy answers every request with this status by itself."""

    def take(self, name: str) -> bool:
        """Use up one of a counted fault; tell whether it was there."""
        left = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return bool(left != 0)

    def update(self, changes: dict[str, Any]) -> None:
        """Set faults by name. Raises ValueError for an unknown name or a wrong type."""
        known = {field.name: type(getattr(self, field.name)) for field in fields(self)}
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"unknown fault {name!r}; known: {', '.join(sorted(known))}")
            if isinstance(value, bool) or not isinstance(
                value, (int, float) if known[name] is float else known[name]
            ):
                raise ValueError(f"fault {name!r} takes a {known[name].__name__}")
            setattr(self, name, known[name](value))

    def as_dict(self) -> dict[str, Any]:
        """Return every fault with its value."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
