"""The server side of HTTP/2 (RFC 9113) over h2: one task per stream, GOAWAY on draining."""

from __future__ import annotations

import asyncio
from collections import deque

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError
from hyperframe.frame import GoAwayFrame
from typing_extensions import override

from konverge.lab.kong.wire.body import Body
from konverge.lab.kong.wire.connections import ServerContext
from konverge.lab.kong.wire.exchange import Peer, Reply, Request
from konverge.lab.kong.wire.message import HeaderItems, Headers, print_date
from konverge.lab.kong.wire.pages import HTML, refusal_page
from konverge.lab.kong.wire.stream import StreamClosed

HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "upgrade", "proxy-connection"})
BODY_TIMEOUT = 60.0


class Http2Body(Body):
    """The body of one stream; reading it opens the flow-control window again."""

    def __init__(self, connection: Http2Connection, stream: int, ended: bool) -> None:
        self._connection = connection
        self._stream = stream
        self._pieces: deque[tuple[bytes, int]] = deque()
        self._complete = ended
        self._failed = False
        self.ended = ended
        self._news = asyncio.Event()

    def feed(self, data: bytes, credit: int) -> None:
        """Take a DATA frame; ``credit`` is its flow-controlled length."""
        self._pieces.append((data, credit))
        self._news.set()

    def finish(self, *, failed: bool = False) -> None:
        """Take the end of the stream, or its reset."""
        self._complete, self._failed = True, failed
        self._news.set()

    @override
    async def read(self) -> bytes:
        while not self._pieces:
            if self._failed:
                raise StreamClosed("the stream was reset")
            if self._complete:
                self.ended = True
                return b""
            self._news.clear()
            async with asyncio.timeout(BODY_TIMEOUT):
                await self._news.wait()
        data, credit = self._pieces.popleft()
        self._connection.acknowledge(credit, self._stream)
        return data or await self.read()


class Http2Reply(Reply):
    """A reply on a stream."""

    def __init__(self, connection: Http2Connection, stream: int, head: bool) -> None:
        self._connection = connection
        self._stream = stream
        self._head = head
        self._finished = False

    @override
    async def start(self, status: int, headers: HeaderItems, *, reason: str | None = None) -> None:
        self.started, self.status = True, status
        fields = [(":status", str(status))]
        fields += [(name.lower(), value) for name, value in headers if name.lower() not in HOP_BY_HOP]
        self._finished = self._head or status in (204, 304)
        self.sent += sum(len(name) + len(value) for name, value in fields)
        self._connection.send_head(self._stream, fields, self._finished)

    @override
    async def write(self, data: bytes) -> None:
        if not self._finished and data:
            self.sent += len(data)
            await self._connection.send_data(self._stream, data)

    @override
    async def end(self) -> None:
        if not self.ended:
            self.ended = True
            if not self._finished:
                self._connection.end_stream(self._stream)

    @override
    def abort(self) -> None:
        self.ended = True
        self._connection.reset_stream(self._stream)

    @override
    def close_after(self) -> None:
        self._connection.drain_down()


class Http2Connection(asyncio.Protocol):
    """One HTTP/2 connection of a listener."""

    def __init__(self, context: ServerContext, peer: Peer) -> None:
        self.context = context
        self.peer = peer
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._transport: asyncio.Transport | None = None
        self._bodies: dict[int, Http2Body] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._window = asyncio.Event()
        self._leaving = False
        self._last_stream = 0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.context.connections.add(self)
        self._h2.initiate_connection()
        self._flush()

    @override
    def data_received(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self._flush()
            self.close()
            return
        for event in events:
            self._take(event)
        self._flush()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.context.connections.discard(self)
        for body in self._bodies.values():
            body.finish(failed=True)
        self._window.set()
        if self.context.cancel_lost:
            for task in self._tasks.values():
                task.cancel()

    def _take(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._open(event)
        elif isinstance(event, DataReceived) and event.stream_id in self._bodies:
            self._bodies[event.stream_id].feed(event.data or b"", event.flow_controlled_length or 0)
        elif isinstance(event, StreamEnded) and event.stream_id in self._bodies:
            self._bodies[event.stream_id].finish()
        elif isinstance(event, StreamReset) and event.stream_id in self._bodies:
            self._bodies[event.stream_id].finish(failed=True)
            self._window.set()
        elif isinstance(event, WindowUpdated):
            self._window.set()

    def _open(self, event: RequestReceived) -> None:
        stream = event.stream_id
        assert stream is not None
        self._last_stream = max(self._last_stream, stream)
        pairs = [(_text(name), _text(value)) for name, value in event.headers or ()]
        pseudo = {name: value for name, value in pairs if name.startswith(":")}
        headers = Headers([pair for pair in pairs if not pair[0].startswith(":")])
        if "host" not in headers and ":authority" in pseudo:
            headers.add("host", pseudo[":authority"])
        ended = event.stream_ended is not None
        body = self._bodies[stream] = Http2Body(self, stream, ended)
        length = headers.get("content-length")
        body.length = int(length) if length and length.isdigit() else None
        request = Request(pseudo.get(":method", ""), pseudo.get(":path", "/"), "2", headers, body, self.peer)
        reply = Http2Reply(self, stream, request.method == "HEAD")
        self.context.connections.stats.requests += 1
        task = asyncio.get_running_loop().create_task(self._handle(stream, request, reply))
        self._tasks[stream] = task

    async def _handle(self, stream: int, request: Request, reply: Http2Reply) -> None:
        stats = self.context.connections.stats
        stats.busy += 1
        try:
            if self.peer.refusal:
                await self._refuse(reply)
            else:
                await self.context.handler(request, reply)
        except (StreamClosed, ConnectionError, TimeoutError, ProtocolError):
            self.reset_stream(stream)
        finally:
            stats.busy -= 1
            self._bodies.pop(stream, None)
            self._tasks.pop(stream, None)
            if self._leaving and not self._tasks:
                self.close()

    async def _refuse(self, reply: Http2Reply) -> None:
        page = refusal_page(self.peer.refusal)
        fields = [
            ("server", self.context.server_name),
            ("date", print_date()),
            ("content-type", HTML),
            ("content-length", str(len(page))),
        ]
        await reply.send(400, fields, page)

    def acknowledge(self, credit: int, stream: int) -> None:
        """Give flow-control credit back."""
        if credit and not self._closing():
            try:
                self._h2.acknowledge_received_data(credit, stream)
            except ProtocolError:
                return
            self._flush()

    def send_head(self, stream: int, fields: HeaderItems, last: bool) -> None:
        """Send HEADERS."""
        self._check()
        self._h2.send_headers(stream, fields, end_stream=last)
        self._flush()

    async def send_data(self, stream: int, data: bytes) -> None:
        """Send DATA as the windows allow."""
        view = memoryview(data)
        while view:
            self._check()
            room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
            if room <= 0:
                self._window.clear()
                await self._window.wait()
                continue
            self._h2.send_data(stream, bytes(view[:room]))
            view = view[room:]
            self._flush()

    def end_stream(self, stream: int) -> None:
        """Finish a stream."""
        self._check()
        self._h2.end_stream(stream)
        self._flush()

    def reset_stream(self, stream: int) -> None:
        """Reset a stream; nothing where it is gone already."""
        if not self._closing():
            try:
                self._h2.reset_stream(stream)
            except ProtocolError:
                return
            self._flush()

    def drain_down(self) -> None:
        """Send GOAWAY, serve what is open, then close."""
        if not self._leaving and not self._closing():
            self._leaving = True
            # Not through h2: its own close would refuse to finish the streams that are open.
            frame = GoAwayFrame(0, last_stream_id=self._last_stream)
            if self._transport is not None:
                self._transport.write(frame.serialize())
        if not self._tasks:
            self.close()

    def close(self) -> None:
        """Flush and close."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop at once."""
        if self._transport is not None:
            self._transport.abort()

    def _closing(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _check(self) -> None:
        if self._closing():
            raise StreamClosed("the connection is closed")

    def _flush(self) -> None:
        if not self._closing() and self._transport is not None:
            data = self._h2.data_to_send()
            if data:
                self._transport.write(data)


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
