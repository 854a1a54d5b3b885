"""A byte stream over an asyncio transport: a buffer to read from, back-pressure in both directions.

Reading pulls from one buffer, so the speed of the reader is what the peer feels: the transport is paused above
:data:`HIGH_WATER` bytes and resumed when the reader has taken enough away.
"""

from __future__ import annotations

import asyncio
import select
import socket
from contextlib import suppress

from typing_extensions import override

HIGH_WATER = 256 * 1024
"""Bytes buffered before the transport is told to stop reading."""


class StreamClosed(ConnectionError):
    """The peer is gone, or this side closed the stream."""


class ByteStream(asyncio.Protocol):
    """A protocol with a pull interface; subclasses say what to do once a connection is made."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.eof = False
        self.transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drainer: asyncio.Future[None] | None = None
        self._reading_paused = False
        self._writing_paused = False
        self.lost = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    @override
    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) > HIGH_WATER and not self._reading_paused and self.transport is not None:
            self._reading_paused = True
            self.transport.pause_reading()
        self._wake()

    @override
    def eof_received(self) -> bool | None:
        self.eof = True
        self._wake()
        return True

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.eof = self.lost = True
        self._wake()
        if self._drainer is not None and not self._drainer.done():
            self._drainer.set_result(None)

    @override
    def pause_writing(self) -> None:
        self._writing_paused = True

    @override
    def resume_writing(self) -> None:
        self._writing_paused = False
        if self._drainer is not None and not self._drainer.done():
            self._drainer.set_result(None)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def wait_data(self) -> bool:
        """Wait until the buffer has grown; False where the stream has ended instead."""
        if self.eof:
            return False
        if self._reading_paused and self.transport is not None and len(self.buffer) <= HIGH_WATER:
            self._reading_paused = False
            self.transport.resume_reading()
        size = len(self.buffer)
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            self._waiter = None
        return len(self.buffer) > size

    def take(self, limit: int) -> bytes:
        """Remove and return up to ``limit`` bytes of the buffer."""
        if limit >= len(self.buffer):
            chunk = bytes(self.buffer)
            self.buffer.clear()
        else:
            chunk = bytes(memoryview(self.buffer)[:limit])
            del self.buffer[:limit]
        if self._reading_paused and self.transport is not None and len(self.buffer) <= HIGH_WATER // 2:
            self._reading_paused = False
            self.transport.resume_reading()
        return chunk

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport. Raises StreamClosed where the connection is gone."""
        if self.lost or self.transport is None or self.transport.is_closing():
            raise StreamClosed("the connection is closed")
        self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the transport takes more. Raises StreamClosed where the connection is gone."""
        if self._writing_paused and not self.lost:
            self._drainer = asyncio.get_running_loop().create_future()
            try:
                await self._drainer
            finally:
                self._drainer = None
        if self.lost:
            raise StreamClosed("the connection is closed")

    def has_unread(self) -> bool:
        """Tell whether the kernel holds bytes of the peer that the loop has not read yet.

        nginx finds an idle connection and closes it within microseconds. A busy Python loop may sit on a request
        for milliseconds; closing over it would lose far more requests than a real gateway does.
        """
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is None or sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def finish(self) -> None:
        """Send the FIN now: the transport's own close waits for the next turn of the loop."""
        sock = self.transport.get_extra_info("socket") if self.transport is not None else None
        if sock is not None and self.transport is not None and not self.transport.get_write_buffer_size():
            with suppress(OSError):
                sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Flush and send a FIN."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self.transport is not None:
            self.transport.abort()


def reset(transport: asyncio.Transport) -> None:
    """Close with RST instead of FIN."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            # struct linger {on, 0 seconds}: close() then sends RST.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    transport.abort()
