"""Taking an HTTP connection over for SPDY, which the HTTP server does not speak."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from konverge.lab.kubelet.spdy.frames import SpdyError
from konverge.lab.kubelet.spdy.session import Session

Serve = Callable[[Session], Coroutine[Any, Any, None]]


class TakenResponse(web.StreamResponse):
    """The response of a connection that HTTP has left: nothing more is written."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002
        """Write nothing."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing."""


class SpdyProtocol(asyncio.Protocol):
    """Bytes of the taken connection to and from a SPDY session."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.session = Session(self.send)
        self.lost = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    async def send(self, data: bytes) -> None:
        """Write bytes and wait while the peer is slow."""
        if self.transport.is_closing():
            raise ConnectionResetError("The connection is closed.")
        self.transport.write(data)
        await self._writable.wait()

    def data_received(self, data: bytes) -> None:
        """Feed the session; a peer that makes no sense is dropped."""
        try:
            self.session.feed(data)
        except SpdyError:
            self.transport.abort()
            return
        if not self.session.readable.is_set():
            self.transport.pause_reading()
            asyncio.ensure_future(self._resume())  # noqa: RUF006 - ends with the session at the latest

    async def _resume(self) -> None:
        await self.session.readable.wait()
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """Hold senders back."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let senders go on."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the base class's signature
        """End the session."""
        self._writable.set()
        self.session.feed_eof()
        self.lost.set()


async def take_over(request: web.Request, protocol: str, serve: Serve) -> web.StreamResponse:
    """Answer 101 with ``protocol`` as the negotiated stream protocol, then run ``serve`` on the session."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("The client has left before the upgrade.")
    http = request.protocol
    taken = SpdyProtocol(transport)
    transport.set_protocol(taken)
    transport.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
        b"X-Stream-Protocol-Version: " + protocol.encode() + b"\r\n\r\n"
    )
    try:
        await serve(taken.session)
        await taken.session.close()
    finally:
        transport.close()
        # The HTTP side must hear of the end, because it still counts the connection as its own.
        http.connection_lost(None)
    return TakenResponse()
