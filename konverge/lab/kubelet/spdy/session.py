"""A SPDY/3.1 session over any byte transport: a TLS connection after an upgrade, or a WebSocket tunnel.

Flow control: we always announce what was consumed (WINDOW_UPDATE). We obey windows only towards a peer that has
shown that it keeps them, because the SPDY library of kubectl and the API server never sends an update.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable, Mapping

from konverge.lab.kubelet.spdy.frames import (
    FLAG_FIN,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW,
    PING,
    RST_STREAM,
    SETTINGS,
    SETTINGS_INITIAL_WINDOW_SIZE,
    SYN_REPLY,
    SYN_STREAM,
    WINDOW_UPDATE,
    Frame,
    FrameReader,
    HeaderBlocks,
    write_control,
    write_data,
)
from konverge.lab.kubelet.spdy.streams import SpdyStream

PROTOCOL_ERROR, INVALID_STREAM = 1, 2
"""Status codes of RST_STREAM (section 2.6.3)."""
BUFFER_LIMIT = 1024 * 1024
"""Unread bytes of all streams above which the transport should stop reading."""

Send = Callable[[bytes], Awaitable[None]]


class Session:
    """Keeps the streams of one connection; ``send`` carries bytes to the peer and waits while it is slow.

    The server accepts streams with odd numbers; the client role (``client=True``) opens them.
    """

    def __init__(self, send: Send, *, client: bool = False) -> None:
        self._send = send
        self._reader = FrameReader()
        self._blocks = HeaderBlocks()
        self._streams: dict[int, SpdyStream] = {}
        self._incoming: asyncio.Queue[SpdyStream | None] = asyncio.Queue()
        self._client = client
        self._next = 1 if client else 2
        self._peer_window = INITIAL_WINDOW
        self._peer_keeps_windows = False
        self._unread = 0
        self._replies: set[asyncio.Task[None]] = set()
        self.readable = asyncio.Event()
        self.readable.set()
        self.closed = asyncio.Event()

    async def accept(self) -> SpdyStream | None:
        """Return the next stream of the peer (already answered), or None after the end."""
        return await self._incoming.get()

    async def open(self, headers: Mapping[str, str]) -> SpdyStream:
        """Open a stream towards the peer."""
        stream = SpdyStream(self, self._next, dict(headers))
        self._next += 2
        stream.window = self._peer_window
        self._streams[stream.number] = stream
        head = struct.pack(">IIH", stream.number, 0, 0)
        await self._send(write_control(SYN_STREAM, head + self._blocks.pack(headers)))
        return stream

    def feed(self, data: bytes) -> None:
        """Take bytes of the peer; SpdyError where they make no sense."""
        for frame in self._reader.feed(data):
            self._handle(frame)

    def feed_eof(self) -> None:
        """Take note that the peer left: every stream ends."""
        if self.closed.is_set():
            return
        self.closed.set()
        for stream in list(self._streams.values()):
            stream.break_off()
        self._streams.clear()
        self._incoming.put_nowait(None)
        self.readable.set()

    async def close(self) -> None:
        """Say goodbye and end every stream; the owner closes the transport."""
        if not self.closed.is_set():
            with contextlib.suppress(ConnectionError, RuntimeError):  # the peer may have been faster
                await self._send(write_control(GOAWAY, struct.pack(">II", 0, 0)))
            self.feed_eof()
        await asyncio.gather(*self._replies, return_exceptions=True)

    def _handle(self, frame: Frame) -> None:
        if frame.kind == 0:
            self._handle_data(frame)
        elif frame.kind == SYN_STREAM:
            self._handle_open(frame)
        elif frame.kind in (SYN_REPLY, HEADERS):
            self._blocks.unpack(frame.payload[4:])  # keeps the compression state in step
            self._end_if_fin(frame, self._streams.get(frame.number()))
        elif frame.kind == RST_STREAM:
            self._break(self._streams.pop(frame.number(), None))
        elif frame.kind == PING:
            if frame.number() % 2 == (0 if self._client else 1):
                self._answer(write_control(PING, frame.payload))
        elif frame.kind == SETTINGS:
            self._handle_settings(frame)
        elif frame.kind == WINDOW_UPDATE:
            self._handle_window(frame)

    def _handle_open(self, frame: Frame) -> None:
        number = frame.number()
        headers = self._blocks.unpack(frame.payload[10:])
        if number % 2 == (1 if self._client else 0) or number in self._streams:
            self._answer(write_control(RST_STREAM, struct.pack(">II", number, PROTOCOL_ERROR)))
            return
        stream = SpdyStream(self, number, headers)
        stream.window = self._peer_window
        self._streams[number] = stream
        # Packed here and not when sent: blocks must be compressed in the order in which they travel.
        self._answer(write_control(SYN_REPLY, struct.pack(">I", number) + self._blocks.pack({})))
        self._incoming.put_nowait(stream)
        self._end_if_fin(frame, stream)

    def _handle_data(self, frame: Frame) -> None:
        stream = self._streams.get(frame.stream)
        if stream is None:
            self._answer(write_control(RST_STREAM, struct.pack(">II", frame.stream, INVALID_STREAM)))
            return
        self._unread += len(frame.payload)
        if self._unread > BUFFER_LIMIT:
            self.readable.clear()
        stream.receive(frame.payload)
        self._end_if_fin(frame, stream)

    def _end_if_fin(self, frame: Frame, stream: SpdyStream | None) -> None:
        if stream is not None and frame.flags & FLAG_FIN:
            stream.receive_end()
            self.forget_if_done(stream)

    def _handle_settings(self, frame: Frame) -> None:
        for index in range(frame.number()):
            if frame.number(4 + 8 * index) & 0xFFFFFF == SETTINGS_INITIAL_WINDOW_SIZE:
                size = frame.number(8 + 8 * index)
                for stream in self._streams.values():
                    stream.widen(size - self._peer_window)
                self._peer_window = size
                self._peer_keeps_windows = True

    def _handle_window(self, frame: Frame) -> None:
        self._peer_keeps_windows = True
        stream = self._streams.get(frame.number())
        if stream is not None:
            stream.widen(frame.number(4))

    def _break(self, stream: SpdyStream | None) -> None:
        if stream is not None:
            stream.break_off()

    def _answer(self, frame: bytes) -> None:
        async def send_quietly() -> None:
            try:
                await self._send(frame)
            except (ConnectionError, RuntimeError):
                self.feed_eof()

        task = asyncio.get_running_loop().create_task(send_quietly())
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    def allowance(self, stream: SpdyStream) -> int:
        """Return how many bytes may be sent on the stream now."""
        return stream.window if self._peer_keeps_windows else BUFFER_LIMIT

    async def send_data(self, stream: SpdyStream, data: bytes, fin: bool = False) -> None:
        """Send one data frame."""
        if self.closed.is_set():
            raise ConnectionResetError("The SPDY session has ended.")
        stream.window -= len(data)
        await self._send(write_data(stream.number, data, fin))

    def acknowledge(self, stream: SpdyStream, size: int) -> None:
        """Account for consumed bytes and tell the peer in steps of half a window."""
        self._unread -= size
        if self._unread <= BUFFER_LIMIT // 2:
            self.readable.set()
        stream.unacknowledged += size
        if stream.unacknowledged >= INITIAL_WINDOW // 2 and not self.closed.is_set():
            update = struct.pack(">II", stream.number, stream.unacknowledged)
            stream.unacknowledged = 0
            self._answer(write_control(WINDOW_UPDATE, update))

    def forget_if_done(self, stream: SpdyStream) -> None:
        """Drop a stream that both sides have closed."""
        if stream.done:
            self._streams.pop(stream.number, None)
