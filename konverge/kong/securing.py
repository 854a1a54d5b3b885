"""TLS straight on the socket: a transport that holds no buffers while its connection is idle.

asyncio's own TLS layer takes 256 KiB per connection at once and keeps the room of the largest piece that it ever
encrypted or decrypted; a controller keeps one connection per proxy for hours, and the answer to a push is as large
as the configuration. Here OpenSSL reads from and writes to the socket itself, which also saves two copies.

One record (16 KiB at most, RFC 8446 section 5.1) is read at a time, so nothing is left inside OpenSSL that the
selector could not tell of.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

RECORD = 16 * 1024
"""Bytes of the largest TLS record: what one read takes."""
TURN = 16
"""Records that are read before the loop gets its turn."""
HIGH = 64 * 1024
"""Bytes waiting to be sent above which the protocol is asked to pause."""
LOW = HIGH // 4

_WAIT = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


async def secure(
    connected: socket.socket, context: ssl.SSLContext, server_name: str | None, protocol: asyncio.Protocol
) -> TlsTransport:
    """Make the handshake over a connected non-blocking socket and attach the protocol.

    Takes the socket over and closes it where this fails: ssl.SSLError (its reason names the peer's alert) or OSError.
    """
    try:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped = context.wrap_socket(connected, server_hostname=server_name, do_handshake_on_connect=False)
    except BaseException:
        connected.close()
        raise
    try:
        await _shake_hands(wrapped)
        return TlsTransport(wrapped, protocol)
    except BaseException:
        wrapped.close()
        raise


async def _shake_hands(wrapped: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            return wrapped.do_handshake()
        except ssl.SSLWantReadError:
            await _wait_for(wrapped, loop.add_reader, loop.remove_reader)
        except ssl.SSLWantWriteError:
            await _wait_for(wrapped, loop.add_writer, loop.remove_writer)


async def _wait_for(
    wrapped: ssl.SSLSocket, watch: Callable[..., None], leave: Callable[[ssl.SSLSocket], bool]
) -> None:
    ready = asyncio.get_running_loop().create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    watch(wrapped, tell)
    try:
        await ready
    finally:
        leave(wrapped)


class TlsTransport(asyncio.Transport):
    """A connection after its handshake; made by :func:`secure`."""

    def __init__(self, wrapped: ssl.SSLSocket, protocol: asyncio.Protocol) -> None:
        super().__init__(
            {
                "socket": wrapped,
                "ssl_object": wrapped,
                "sslcontext": wrapped.context,
                "peername": wrapped.getpeername(),
                "sockname": wrapped.getsockname(),
            }
        )
        self._loop = asyncio.get_running_loop()
        self._socket = wrapped
        self._protocol: asyncio.BaseProtocol = protocol
        self._waiting: deque[memoryview] = deque()
        self._size = 0
        self._high, self._low = HIGH, LOW
        self._reading = False
        self._writer_paused = False
        self._broken = False
        self._closing = False
        self._lost = False
        protocol.connection_made(self)
        self.resume_reading()

    def __repr__(self) -> str:
        state = "lost" if self._lost else "closing" if self._closing else "open"
        return f"<TlsTransport {self.get_extra_info('peername')} {state}>"

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand what comes from now on to another protocol."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who gets what comes."""
        return self._protocol

    def is_closing(self) -> bool:
        """Tell whether it was closed, or broke."""
        return self._closing

    def is_reading(self) -> bool:
        """Tell whether what comes is read."""
        return self._reading

    def pause_reading(self) -> None:
        """Leave what comes to the kernel."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket)

    def resume_reading(self) -> None:
        """Read what comes."""
        if not self._reading and not self._closing:
            self._reading = True
            self._loop.add_reader(self._socket, self._read)

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait to be sent."""
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the sizes at which the protocol may go on, and at which it is asked to pause."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set these sizes in bytes; each follows from the other where only one is given."""
        if high is None:
            high = HIGH if low is None else 4 * low
        low = high // 4 if low is None else low
        if not 0 <= low <= high:
            raise ValueError(f"0 <= low <= high does not hold: low is {low}, high is {high}")
        self._low, self._high = low, high
        self._pace()

    def can_write_eof(self) -> bool:
        """TLS ends both directions with one message: no."""
        return False

    def write_eof(self) -> None:
        """Not to be had, as :meth:`can_write_eof` says."""
        raise NotImplementedError

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Send pieces one after the other."""
        self.write(b"".join(list_of_data))

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send, or keep a reference until the socket takes more; after the end of the connection, nothing."""
        if self._closing or self._broken or not data:
            return
        rest = memoryview(data if isinstance(data, bytes) else bytes(data))
        if not self._waiting and (rest := self._send(rest)):
            self._loop.add_writer(self._socket, self._flush)
        if rest:
            self._waiting.append(rest)
            self._size += len(rest)
            self._pace()

    def close(self) -> None:
        """Send what waits, say goodbye and close; nothing more is read."""
        if not self._closing:
            self._closing = True
            if self._reading:
                self._reading = False
                self._loop.remove_reader(self._socket)
            if not self._waiting and not self._broken:
                self._end(None, polite=True)

    def abort(self) -> None:
        """Close at once."""
        self._end(None)

    def _read(self) -> None:
        """Read what is there; each record is handed on by itself."""
        for _ in range(TURN):
            if not self._reading:
                return
            try:
                data = self._socket.recv(RECORD)
            except _WAIT:
                return
            except OSError as error:
                self._end(error)
                return
            if not data:
                if not self._broken:
                    self._note_eof()
                return
            assert isinstance(self._protocol, asyncio.Protocol)
            try:
                self._protocol.data_received(data)
            except BaseException as error:
                self._end(error if isinstance(error, Exception) else None)
                raise

    def _note_eof(self) -> None:
        """End: TLS knows no connection that is open in one direction only."""
        assert isinstance(self._protocol, asyncio.Protocol)
        self._protocol.eof_received()
        self._end(None, polite=True)

    def _send(self, data: memoryview) -> memoryview:
        """Return what the socket did not take."""
        try:
            while data:
                data = data[self._socket.send(data) :]
        except _WAIT:
            pass
        except OSError as error:
            self._break(error)
            return data[:0]
        return data

    def _flush(self) -> None:
        while self._waiting:
            before = self._waiting[0]
            rest = self._send(before)
            if self._broken:
                return
            self._size -= len(before) - len(rest)
            if rest:
                # OpenSSL wants the same bytes again, and these are.
                self._waiting[0] = rest
                self._pace()
                return
            self._waiting.popleft()
        self._loop.remove_writer(self._socket)
        self._pace()
        if self._closing:
            self._end(None, polite=True)

    def _break(self, error: OSError) -> None:
        """End after a failed write, but first hand on what came before it: an answer, or the alert that says why."""
        self._broken = True
        self._drop_waiting()
        self._loop.call_soon(self._conclude, error)

    def _conclude(self, error: OSError) -> None:
        self._read()
        self._end(error)

    def _pace(self) -> None:
        """Ask the protocol to pause, or to go on."""
        if not self._writer_paused and self._size > self._high:
            self._writer_paused = True
            self._protocol.pause_writing()
        elif self._writer_paused and self._size <= self._low:
            self._writer_paused = False
            self._protocol.resume_writing()

    def _drop_waiting(self) -> None:
        self._waiting.clear()
        self._size = 0
        self._loop.remove_writer(self._socket)

    def _end(self, error: Exception | None, *, polite: bool = False) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._socket)
        self._drop_waiting()
        if polite:
            self._say_goodbye()
        self._loop.call_soon(self._tell_lost, error)

    def _say_goodbye(self) -> None:
        """Send one message; the peer's own is not waited for (RFC 8446 section 6.1).

        What came unread, session tickets too, is taken first: the kernel resets a connection that is closed over it,
        and the peer then loses what it has not read yet.
        """
        with suppress(OSError):
            for _ in range(TURN):
                if not self._socket.recv(RECORD):
                    break
        with suppress(OSError, ValueError):
            self._socket.unwrap()

    def _tell_lost(self, error: Exception | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._socket.close()
