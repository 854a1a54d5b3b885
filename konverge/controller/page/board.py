"""Keeps what the page shows and tells its readers what changed, as numbered changes.

A reader that comes back with the number it saw last gets only what it missed; one that is too far behind, or comes
from another process, gets everything. A reader that does not read is dropped: the browser comes back by itself.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from konverge.controller.page.snapshot import Row, SnapshotSource, classify_all, describe_fleet, describe_proxy
from konverge.model.proxy import ProxyStatus
from konverge.operate.clock import Clock, utc_now

REMEMBERED = 256
"""Changes that a reader may have missed."""
BACKLOG = 64
"""Changes that wait for one reader before it is dropped."""


@dataclass(frozen=True, slots=True)
class Change:
    """One numbered change as it is sent. ``event`` is ``change`` (what differs) or ``snapshot`` (everything)."""

    number: int
    event: str
    data: bytes = field(repr=False)


@dataclass(eq=False, slots=True)
class Reader:
    """One open stream: a bounded queue of changes. ``dropped`` says that it was too slow."""

    queue: asyncio.Queue[Change | None] = field(default_factory=lambda: asyncio.Queue(BACKLOG))
    dropped: bool = False


@dataclass(slots=True)
class Board:
    """The rows of the page and the changes that led to them."""

    source: SnapshotSource
    clock: Clock = utc_now
    epoch: str = field(default_factory=lambda: secrets.token_hex(4))
    """Differs per process: numbers of another one mean nothing here."""
    number: int = 0
    fleet: Row = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    readers: set[Reader] = field(default_factory=set)
    _seen: dict[str, tuple[ProxyStatus, Any]] = field(default_factory=dict)
    _changes: deque[Change] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    @property
    def version(self) -> str:
        """What the page holds now, as an event id and an ETag."""
        return f"{self.epoch}-{self.number}"

    def refresh(self) -> bool:
        """Take what the source knows; True where something changed, which every reader is then told."""
        snapshot = self.source.snapshot()
        states = classify_all(snapshot, self.clock())
        changed: list[Row] = []
        for name, status in snapshot.proxies.items():
            before = self._seen.get(name)
            if before is not None and before[0] is status and before[1] is states[name]:
                continue
            self._seen[name] = (status, states[name])
            row = describe_proxy(name, status, states[name])
            if row != self.rows.get(name):
                self.rows[name] = row
                changed.append(row)
        gone = [name for name in self.rows if name not in snapshot.proxies]
        for name in gone:
            del self.rows[name], self._seen[name]
        fleet = describe_fleet(snapshot, states)
        if not (changed or gone or fleet != self.fleet):
            return False
        self.fleet = fleet
        self._publish({"fleet": fleet, "proxies": changed, "gone": gone})
        return True

    def document(self) -> bytes:
        """Return everything as JSON."""
        return orjson.dumps({"version": self.version, "fleet": self.fleet, "proxies": list(self.rows.values())})

    def catch_up(self, last: str) -> list[Change]:
        """Return what a reader misses that saw ``last``: single changes, or one snapshot."""
        epoch, _, number = last.rpartition("-")
        if epoch == self.epoch and number.isascii() and number.isdigit():
            missed = [change for change in self._changes if change.number > int(number)]
            if int(number) + len(missed) == self.number:
                return missed
        return [Change(self.number, "snapshot", self.document())]

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """Register a reader while the block runs."""
        reader = Reader()
        self.readers.add(reader)
        try:
            yield reader
        finally:
            self.readers.discard(reader)

    def close(self) -> None:
        """End every stream."""
        for reader in list(self.readers):
            self._drop(reader)

    def _publish(self, change: Row) -> None:
        self.number += 1
        numbered = Change(self.number, "change", orjson.dumps({"version": self.version, **change}))
        self._changes.append(numbered)
        for reader in list(self.readers):
            try:
                reader.queue.put_nowait(numbered)
            except asyncio.QueueFull:
                reader.dropped = True
                self._drop(reader)

    def _drop(self, reader: Reader) -> None:
        self.readers.discard(reader)
        while not reader.queue.empty():
            reader.queue.get_nowait()
        reader.queue.put_nowait(None)
