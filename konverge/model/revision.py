"""ConfigRevision: one rendered configuration, its bytes and where it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import Field

from konverge.model.base import Value


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

    @property
    def hash(self) -> str:
        """The md5 of the bytes: Kong's ``configuration_hash`` for content posted as application/yaml."""
        return hashlib.md5(self.content, usedforsecurity=False).hexdigest()


def revision_name(fleet: str, number: int) -> str:
    """Return the name of the ConfigRevision object."""
    return f"{fleet}-{number:06d}"
