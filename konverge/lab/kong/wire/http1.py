"""The server side of HTTP/1.1: one task per connection, one request after the other.

Timeouts are nginx's: 60 s for a head, 60 s between two reads of a body (then the connection ends without an
answer), 75 s of keep-alive.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from typing_extensions import override

from konverge.lab.kong.wire.body import Body, frame_body
from konverge.lab.kong.wire.connections import Connections, ServerContext
from konverge.lab.kong.wire.exchange import Peer, Reply, Request
from konverge.lab.kong.wire.message import (
    MAX_HEAD,
    BadMessage,
    HeaderItems,
    parse_request_head,
    phrase,
    print_date,
    print_head,
)
from konverge.lab.kong.wire.pages import HTML, error_page, refusal_page
from konverge.lab.kong.wire.stream import ByteStream, StreamClosed, reset

log = logging.getLogger(__name__)

HEADER_TIMEOUT = 60.0
BODY_TIMEOUT = 60.0
KEEPALIVE_TIMEOUT = 75.0
LINGERING_LIMIT = 64 * 1024 * 1024
LINGERING_TIMEOUT = 5.0


class TimedBody(Body):
    """A body whose reads give up after :data:`BODY_TIMEOUT`, and that says "continue" when it is first read."""

    def __init__(self, inner: Body, connection: Http1Connection, expects: bool) -> None:
        self.inner = inner
        self.length = inner.length
        self._connection = connection
        self._expects = expects

    @property
    def ended(self) -> bool:  # type: ignore[override]
        """Tell whether everything was read."""
        return self.inner.ended

    @property
    def untouched(self) -> bool:
        """Tell whether a client that waits for 100 Continue still waits."""
        return self._expects

    @override
    async def read(self) -> bytes:
        if self.inner.ended:
            return b""
        if self._expects:
            self._expects = False
            self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._connection.buffer:
            return await self.inner.read()
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                return await self.inner.read()
        except TimeoutError:
            raise StreamClosed("no byte of the body for 60 s") from None


class Http1Reply(Reply):
    """A reply on an HTTP/1.1 connection."""

    def __init__(self, connection: Http1Connection, request: Request, keep: bool) -> None:
        self._connection = connection
        self._request = request
        self.keep = keep
        self._chunked = False
        self._bodyless = request.method == "HEAD"

    @override
    def close_after(self) -> None:
        self.keep = False

    @override
    async def start(self, status: int, headers: HeaderItems, *, reason: str | None = None) -> None:
        self.started, self.status = True, status
        if self._connection.context.draining:
            self.keep = False
        names = {name.lower() for name, _ in headers}
        no_body = status in (204, 304) or status < 200
        self._chunked = not no_body and "content-length" not in names and status != 101
        self._bodyless = self._bodyless or no_body
        fields: HeaderItems = []
        for name, value in headers:
            if name == "Connection" and not value:
                if self._chunked:
                    fields.append(("Transfer-Encoding", "chunked"))
                fields.append(("Connection", "keep-alive" if self.keep else "close"))
            else:
                fields.append((name, value))
        text = phrase(status) if reason is None else reason
        head = print_head(f"HTTP/1.1 {status} {text}", fields)
        self.sent += len(head)
        self._connection.write(head)

    @override
    async def write(self, data: bytes) -> None:
        if self._bodyless or not data:
            return
        self.sent += len(data)
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._connection.write(data)
        await self._connection.drain()

    @override
    async def end(self) -> None:
        if not self.ended:
            self.ended = True
            if self._chunked and not self._bodyless:
                self._connection.write(b"0\r\n\r\n")

    @override
    def abort(self) -> None:
        self.ended, self.keep = True, False
        self._connection.abort()

    @override
    def reset(self) -> None:
        self.ended, self.keep = True, False
        if self._connection.transport is not None:
            reset(self._connection.transport)

    async def hijack(self) -> Http1Connection:
        """Return the raw connection for an upgraded protocol; it is closed afterwards."""
        self.keep, self.ended = False, True
        return self._connection


class Http1Connection(ByteStream):
    """One connection of a listener."""

    def __init__(self, context: ServerContext, peer: Peer) -> None:
        super().__init__()
        self.context = context
        self.peer = peer
        self.idle = True
        self.served = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def registry(self) -> Connections:
        """Return the connections that this one is counted in."""
        return self.context.connections

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.registry.add(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.registry.discard(self)
        if self.context.cancel_lost and self._task is not None:
            self._task.cancel()

    def drain_down(self) -> None:
        """Close at once where nothing is going on; otherwise after the reply that is under way.

        A connection that has not had a request yet is not idle in nginx's sense (``ngx_close_idle_connections``
        closes kept ones only): its first request is answered, as on a real Kong, where no fresh connection is lost.
        """
        if self.served and self.idle and not self.buffer and not self.has_unread():
            self.finish()
            self.close()

    async def _serve(self) -> None:
        try:
            while await self._serve_one():
                if self.context.draining:
                    break
        except (StreamClosed, ConnectionError, TimeoutError):
            pass
        except asyncio.CancelledError:
            self.abort()
            raise
        except Exception:
            log.exception("connection failed")
            self.abort()
            return
        self.close()

    async def _read_head(self) -> bytes | None:
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            if len(self.buffer) > MAX_HEAD:
                raise BadMessage("request head too large")
            if not await self.wait_data():
                return None
            while self.idle and self.buffer[:2] == b"\r\n":
                del self.buffer[:2]
            if self.buffer:
                self.idle = False
        head = self.take(end)
        self.take(4)
        return head

    async def _serve_one(self) -> bool:
        """Serve one request; return whether the connection lives on."""
        self.idle = not self.buffer
        if b"\r\n\r\n" in self.buffer:
            head = await self._read_head()
        else:
            async with asyncio.timeout(KEEPALIVE_TIMEOUT if self.idle else HEADER_TIMEOUT):
                head = await self._read_head()
        if head is None:
            return False
        self.idle = False
        self.registry.stats.requests += 1
        self.served += 1
        try:
            method, target, version, headers = parse_request_head(head)
            keep = _keeps_alive(version, headers.get("connection"))
            expects = (headers.get("expect") or "").lower() == "100-continue"
            body = TimedBody(frame_body(self, headers, request=True), self, expects)
            if version == "1.1" and "host" not in headers:
                raise BadMessage("no Host")
        except BadMessage as error:
            await self._refuse(error_page(error.status), error.status)
            return False
        request = Request(method, target, version, headers, body, self.peer)
        if self.peer.refusal:
            await self._refuse(refusal_page(self.peer.refusal), 400)
            await self._linger(body)
            return False
        reply = Http1Reply(self, request, keep and not self.context.draining)
        await self._handle(request, reply)
        if not reply.ended or self.lost:
            return False
        if not body.ended and not await self._linger(body):
            return False
        return reply.keep

    async def _handle(self, request: Request, reply: Http1Reply) -> None:
        self.registry.stats.busy += 1
        try:
            await self.context.handler(request, reply)
        except BadMessage as error:
            if not reply.started:
                await self._refuse(error_page(error.status), error.status)
        finally:
            self.registry.stats.busy -= 1

    async def _refuse(self, page: bytes, status: int) -> None:
        fields = [
            ("Date", print_date()),
            ("Content-Type", HTML),
            ("Content-Length", str(len(page))),
            ("Connection", "close"),
        ]
        self.write(print_head(f"HTTP/1.1 {status} {phrase(status)}", fields) + page)
        await self.drain()

    async def _linger(self, body: TimedBody) -> bool:
        """Read away what the client still sends, like ``lingering_close``, so that it sees the answer."""
        if body.untouched or body.ended:
            return body.ended
        seen = 0
        with suppress(StreamClosed, BadMessage, TimeoutError):
            async with asyncio.timeout(LINGERING_TIMEOUT):
                while piece := await body.inner.read():
                    seen += len(piece)
                    if seen > LINGERING_LIMIT:
                        return False
        return body.ended


def _keeps_alive(version: str, connection: str | None) -> bool:
    wish = (connection or "").lower()
    return "close" not in wish if version == "1.1" else "keep-alive" in wish
