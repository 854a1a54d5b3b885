"""ConfigRevision: one rendered configuration, its bytes and where it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pydantic import Field

from konverge.model.base import Value
from konverge.model.counters import Counters


class RevisionSpec(Value):
    """What a ConfigRevision object stores beside the bytes, which live in Secrets."""

    fleet: str
    number: int
    hash: str
    marker: str = ""
    size: int
    chunks: int = 1
    routes: int = 0
    services: int = 0
    author: str = ""
    reason: str = ""
    """Why it was made: which objects changed, or which revision it repeats."""
    sources: dict[str, str] = Field(default_factory=dict)
    """Newest resourceVersion seen of each source kind."""
    created: datetime | None = None


class RevisionOutcome(StrEnum):
    """What became of a revision on the proxies. A good one that is replaced stays good: one can go back to it."""

    PENDING = "Pending"
    """Stored; no sync has brought it to its end."""
    GOOD = "Good"
    """Every reachable proxy ran it unharmed."""
    HARMFUL = "Harmful"
    """A proxy refused it, or it did harm; it was stopped."""
    SUPERSEDED = "Superseded"
    """A newer one took its place before it was judged."""


class RevisionStatus(Value):
    """The status of a ConfigRevision: what the last sync of it found."""

    outcome: RevisionOutcome = RevisionOutcome.PENDING
    reason: str = ""
    message: str = ""
    since: datetime | None = None
    """When this outcome was reached."""
    last_good: datetime | None = None
    """When it was found good the last time; kept when it turns out harmful later."""
    baseline: Counters | None = None
    """Traffic of the proxies before this revision reached any of them: a roll-out that is continued judges by it."""


class RevisionRecord(Value):
    """A ConfigRevision without its bytes: what was stored, and what became of it."""

    spec: RevisionSpec
    status: RevisionStatus = RevisionStatus()

    @property
    def number(self) -> int:
        """The number of the revision."""
        return self.spec.number


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision in memory. ``content`` is what is sent to every proxy; it never shows up in a repr."""

    number: int
    content: bytes = field(repr=False)
    marker: str = ""
    """What the marker route answers while this revision is routed."""
    routes: int = 0
    services: int = 0
    problems: int = 0

    hash: str = field(init=False, default="")
    """The md5 of the bytes: Kong's ``configuration_hash`` for content posted as application/yaml."""

    def __post_init__(self) -> None:
        # Asked for once per proxy, and megabytes take milliseconds: computed once.
        object.__setattr__(self, "hash", hashlib.md5(self.content, usedforsecurity=False).hexdigest())


def revision_name(fleet: str, number: int) -> str:
    """Return the name of the ConfigRevision object."""
    return f"{fleet}-{number:06d}"
