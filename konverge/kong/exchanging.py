"""Watches one request on its way: which connection it got, who is at its other end, how much was sent, until when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
from aiohttp.connector import Connection

from konverge.kong.failures import Delivery

PIECE = 64 * 1024
"""Bytes of a body given to the socket at once, so that the loop is never held for long."""
PATIENT_SIZE = 1024 * 1024
"""Bytes of a body above which ``Expect: 100-continue`` lets nginx refuse it before it is sent."""
CONTINUE_WAIT = 3.0
"""Seconds to wait for "100 Continue" before the body is sent all the same, over a new connection (RFC 9110
section 10.1.1 forbids waiting for ever: a server may ignore the expectation). Kong says it after 7 ms; a
worker that builds its router may take a second."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a TLS connection, as verified in its handshake: DER certificate, protocol name."""

    certificate: bytes = field(repr=False)
    protocol: str


class Exchange:
    """One request. ``patient``: its body waits for "100 Continue"; ``deadline`` is a time of the loop."""

    def __init__(self, deadline: float, *, body: bool, patient: bool) -> None:
        self.deadline = deadline
        self.patient = patient
        self.connected = False
        self.reused = False
        self.peer: Peer | None = None
        self.answer: aiohttp.StreamReader | None = None
        self.begun = not patient
        self.sent = not body
        self._scope: asyncio.Timeout | None = None

    @property
    def delivery(self) -> Delivery:
        """How much can have reached the other side."""
        if not self.connected:
            return Delivery.NOTHING
        return Delivery.WHOLE if self.sent else Delivery.PART

    @property
    def ignored(self) -> bool:
        """Whether it was given up because nobody answered its expectation; none of its body was sent then."""
        return self.connected and not self.begun and asyncio.get_running_loop().time() < self.deadline

    def limit(self) -> asyncio.Timeout:
        """Return the time limit to run the request in."""
        self._scope = asyncio.timeout_at(self.deadline)
        return self._scope

    def connect(self, *, reused: bool) -> None:
        """Note that it has a connection."""
        self.connected, self.reused = True, reused
        if not self.begun:
            self._move(min(self.deadline, asyncio.get_running_loop().time() + CONTINUE_WAIT))

    def meet(self, transport: asyncio.BaseTransport | None) -> None:
        """Note who is at the other end; nothing is known of a plain connection."""
        shown = transport.get_extra_info("ssl_object") if transport is not None else None
        if shown is None:
            return
        certificate = shown.getpeercert(binary_form=True)
        self.peer = Peer(certificate, str(shown.version() or "")) if certificate else None

    def begin(self) -> None:
        """Note that the waiting is over: the body may go, or the answer is there."""
        if not self.begun:
            self.begun = True
            self._move(self.deadline)

    async def read_pieces(self, content: bytes) -> AsyncIterator[bytes]:
        """Yield the body; it counts as sent from the moment its last piece is asked for.

        Before each further piece the loop gets its turn: only then does it learn that the connection has ended, and
        until it has learnt it, asyncio takes whatever is written.
        """
        self.begin()
        last = max((len(content) - 1) // PIECE, 0) * PIECE
        for start in range(0, max(len(content), 1), PIECE):
            if start:
                await asyncio.sleep(0)
            self.sent = self.sent or start == last
            yield content[start : start + PIECE]

    def _move(self, deadline: float) -> None:
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(deadline)


current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)
"""The request that the running task sends: the HTTP library tells of its connections through it."""


def build_trace() -> aiohttp.TraceConfig:
    """Return what makes a session report the connections it takes."""

    async def note_created(session: Any, settings: Any, parameters: Any) -> None:  # noqa: ARG001
        if exchange := current.get():
            exchange.connect(reused=False)

    async def note_reused(session: Any, settings: Any, parameters: Any) -> None:  # noqa: ARG001
        if exchange := current.get():
            exchange.connect(reused=True)

    config = aiohttp.TraceConfig()
    config.on_connection_create_end.append(note_created)
    config.on_connection_reuseconn.append(note_reused)
    return config


class Response(aiohttp.ClientResponse):
    """An answer that tells the running exchange over which connection it comes."""

    async def start(self, connection: Connection) -> Self:
        """Start to read; the connection is given back to the pool once the body is read, so it is looked at now."""
        if exchange := current.get():
            exchange.meet(connection.transport)
        await super().start(connection)
        if exchange:
            exchange.answer = self.content
        return self
