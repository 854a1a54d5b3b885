"""Watches one request on its way: which connection it got, how much of it was sent, when it is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import aiohttp

from konverge.kong.failures import Delivery

PIECE = 64 * 1024
"""Bytes of a body given to the socket at once, so that the loop is never held for long."""
PATIENT_SIZE = 1024 * 1024
"""Bytes of a body above which ``Expect: 100-continue`` lets nginx refuse it before it is sent."""
CONTINUE_WAIT = 3.0
"""Seconds to wait for "100 Continue" before the body is sent all the same, over a new connection (RFC 9110
section 10.1.1 forbids waiting for ever: a server may ignore the expectation). Kong says it after 7 ms; a
worker that builds its router may take a second."""


class Exchange:
    """One request. ``patient``: its body waits for "100 Continue"; ``deadline`` is a time of the loop."""

    def __init__(self, deadline: float, *, body: bool, patient: bool) -> None:
        self.deadline = deadline
        self.patient = patient
        self.connected = False
        self.reused = False
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

    def begin(self) -> None:
        """Note that the waiting is over: the body may go, or the answer is there."""
        if not self.begun:
            self.begun = True
            self._move(self.deadline)

    async def read_pieces(self, content: bytes) -> AsyncIterator[bytes]:
        """Yield the body; it counts as sent from the moment its last piece is asked for."""
        self.begin()
        last = max((len(content) - 1) // PIECE, 0) * PIECE
        for start in range(0, max(len(content), 1), PIECE):
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
