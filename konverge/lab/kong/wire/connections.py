"""The open connections of a listener generation, and the counters that nginx's stub_status shows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

from konverge.lab.kong.wire.exchange import Handler


@dataclass(slots=True)
class Stats:
    """Counters of one node: they only grow, except ``active`` and ``busy``."""

    accepted: int = 0
    requests: int = 0
    active: int = 0
    busy: int = 0


class Closable(Protocol):
    """What a registry can do with a connection."""

    def drain_down(self) -> None:
        """Close where idle, otherwise after what is under way."""

    def abort(self) -> None:
        """Drop at once."""

    def close(self) -> None:
        """Flush and close."""


class Connections:
    """The open connections of one generation."""

    def __init__(self, stats: Stats) -> None:
        self.stats = stats
        self.open: set[Closable] = set()
        self.handshakes: set[Any] = set()
        """TLS layers whose handshake is not done yet; they are no connections of HTTP so far."""
        self._empty = asyncio.Event()
        self._empty.set()

    async def emptied(self) -> None:
        """Wait until no connection is open."""
        await self._empty.wait()

    def add(self, connection: Closable) -> None:
        """Count a connection in."""
        self.open.add(connection)
        self._empty.clear()
        self.stats.accepted += 1
        self.stats.active += 1

    def discard(self, connection: Closable) -> None:
        """Count a connection out."""
        if connection in self.open:
            self.open.discard(connection)
            self.stats.active -= 1
            if not self.open:
                self._empty.set()

    def drain_down(self) -> None:
        """Ask every connection to end as soon as it may."""
        for connection in list(self.open):
            connection.drain_down()

    def abort(self) -> None:
        """Drop every connection."""
        for connection in [*self.open, *self.handshakes]:
            connection.abort()

    def close(self) -> None:
        """Flush and close every connection, whatever is under way."""
        for connection in [*self.open, *self.handshakes]:
            connection.close()


@dataclass(slots=True)
class ServerContext:
    """What the connections of one listener share during one generation of workers."""

    handler: Handler
    connections: Connections
    draining: bool = False
    cancel_lost: bool = False
    """Give a request up when its client is gone: nginx does so for proxied requests, Kong's Admin API does not."""
    server_name: str = "openresty"
