"""The client side: connections to upstreams, kept alive in pools.

``upstream_keepalive_pool_size`` 512, ``upstream_keepalive_idle_timeout`` 60 s and
``upstream_keepalive_max_requests`` 10,000 are Kong's defaults.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from konverge.lab.kong.wire.body import Body, frame_body
from konverge.lab.kong.wire.message import MAX_HEAD, BadMessage, Headers, parse_response_head
from konverge.lab.kong.wire.stream import ByteStream, StreamClosed

POOL_SIZE = 512
IDLE_TIMEOUT = 60.0
MAX_REQUESTS = 10000


class Origin(NamedTuple):
    """Where a connection leads. Connections are shared by requests to the same origin."""

    host: str
    port: int
    tls: bool = False
    server_name: str = ""
    verify: bool = False


class UpstreamConnection(ByteStream):
    """One connection to an upstream."""

    def __init__(self) -> None:
        super().__init__()
        self.served = 0
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        """Tell whether a request may be sent: open, nothing left over."""
        return (
            not self.eof
            and not self.buffer
            and self.transport is not None
            and not self.transport.is_closing()
            and self.served < MAX_REQUESTS
        )

    async def read_response(self) -> tuple[int, str, str, Headers]:
        """Read a head; interim responses other than 101 are skipped. Raises StreamClosed and BadMessage."""
        while True:
            while (end := self.buffer.find(b"\r\n\r\n")) < 0:
                if len(self.buffer) > MAX_HEAD:
                    raise BadMessage("response head too large")
                if not await self.wait_data():
                    raise StreamClosed("the upstream closed before its answer")
            head = self.take(end)
            self.take(4)
            status, reason, version, headers = parse_response_head(head)
            if status >= 200 or status == 101:
                return status, reason, version, headers

    def frame(self, method: str, status: int, headers: Headers) -> Body:
        """Return the body of a response."""
        if method == "HEAD" or status in (204, 304):
            return Body()
        return frame_body(self, headers, request=False)


class UpstreamPool:
    """Idle connections by origin."""

    def __init__(self) -> None:
        self._idle: dict[Origin, deque[UpstreamConnection]] = {}
        self._open: set[UpstreamConnection] = set()
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def take(self, origin: Origin) -> UpstreamConnection | None:
        """Return an idle connection."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
            self.discard(connection)
        return None

    async def connect(self, origin: Origin, timeout: float) -> UpstreamConnection:
        """Open a connection. Raises OSError and TimeoutError."""
        loop = asyncio.get_running_loop()
        context = self._context(origin.verify) if origin.tls else None
        name = (origin.server_name or origin.host) if origin.tls else None
        async with asyncio.timeout(timeout):
            transport, connection = await loop.create_connection(
                UpstreamConnection, origin.host, origin.port, ssl=context, server_hostname=name
            )
        sock = transport.get_extra_info("socket")
        if sock is not None:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(connection)
        return connection

    def _context(self, verify: bool) -> ssl.SSLContext:
        context = self._contexts.get(verify)
        if context is None:
            if verify:
                context = ssl.create_default_context()
            else:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._contexts[verify] = context
        return context

    def give_back(self, origin: Origin, connection: UpstreamConnection) -> None:
        """Return a connection after a complete exchange."""
        connection.served += 1
        idle = self._idle.setdefault(origin, deque())
        if not connection.usable or len(idle) >= POOL_SIZE:
            self.discard(connection)
            return
        connection.idle_since = time.monotonic()
        idle.append(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(IDLE_TIMEOUT, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        limit = time.monotonic() - IDLE_TIMEOUT
        left = 0
        for origin, idle in list(self._idle.items()):
            while idle and (idle[0].idle_since <= limit or not idle[0].usable):
                self.discard(idle.popleft())
            left += len(idle)
            if not idle:
                del self._idle[origin]
        if left:
            self._sweeper = asyncio.get_running_loop().call_later(IDLE_TIMEOUT / 4, self._sweep)

    def discard(self, connection: UpstreamConnection) -> None:
        """Close a connection for good."""
        self._open.discard(connection)
        connection.close()

    def close(self) -> None:
        """Drop every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._open):
            connection.abort()
        self._open.clear()
        self._idle.clear()
