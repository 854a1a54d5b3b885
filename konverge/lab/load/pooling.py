"""Kept connections, used in turn, and the one retry that HTTP allows on them.

A pool opens connections until it has its number and then takes the one that has been idle longest, so that all
of them stay spread over the proxies and each is idle long enough to meet a proxy's shutdown.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from konverge.lab.load.connections import Connection, Endpoint, dial
from konverge.lab.load.outcomes import ExchangeFailed, Kind
from konverge.lab.load.parsing import Response

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})
"""RFC 9110, 9.2.2."""
DEAD_BEFORE_RESPONSE = frozenset({Kind.EOF_BEFORE_RESPONSE, Kind.RESET})


def may_retry(failure: ExchangeFailed, method: str, reused: bool) -> bool:
    """Tell whether RFC 9110, 9.2.2 lets a client repeat the request without asking its user.

    Only on a connection that had served before, only before any byte of the response, and only where the request
    is idempotent or was never written.
    """
    if not reused or failure.answered or failure.kind not in DEAD_BEFORE_RESPONSE:
        return False
    return method in IDEMPOTENT or not failure.written


class Pool:
    """Up to ``size`` kept connections to one endpoint; ``size`` 0 keeps none."""

    def __init__(self, endpoint: Endpoint, size: int, connect_timeout: float) -> None:
        self._endpoint = endpoint
        self._size = size
        self._connect_timeout = connect_timeout
        self._idle: deque[Connection] = deque()
        self._busy: set[Connection] = set()
        self._opening = 0
        self.opened = 0
        self.discarded = 0
        """Kept connections found closed before a request was written to them."""

    async def send(self, method: str, request: Sequence[bytes], timeout: float) -> tuple[Response, bool]:
        """Send a request within ``timeout`` seconds; returns the response and whether it took the one retry.

        Raises ExchangeFailed, of the second try where there was one.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._send(method, request)
        except TimeoutError as error:
            raise ExchangeFailed(Kind.TIMEOUT, f"No complete response within {timeout:g} s") from error

    async def _send(self, method: str, request: Sequence[bytes]) -> tuple[Response, bool]:
        if self._endpoint.tls is not None:
            # A close_notify waits in the socket until the loop has read it: two turns, one to poll, one to parse.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        connection = self._take_idle()
        reused = connection is not None
        try:
            return await self._exchange(connection or await self._open(), method, request), False
        except ExchangeFailed as failure:
            if not may_retry(failure, method, reused):
                raise
        return await self._exchange(await self._open(), method, request), True

    async def _exchange(self, connection: Connection, method: str, request: Sequence[bytes]) -> Response:
        self._busy.add(connection)
        try:
            response = await connection.exchange(method, request)
        finally:
            self._busy.discard(connection)
        self._give_back(connection)
        return response

    def _take_idle(self) -> Connection | None:
        """Return the connection that has been idle longest, or None where a new one is to be opened."""
        for connection in [item for item in self._idle if item.closed]:
            self._idle.remove(connection)
            self.discarded += 1
        while self._idle and self._count() >= self._size:
            connection = self._idle.popleft()
            if not connection.is_stale():
                return connection
            connection.close()
            self.discarded += 1
        return None

    def _give_back(self, connection: Connection) -> None:
        if connection.reusable and self._count() < self._size:
            self._idle.append(connection)
        else:
            connection.close()

    async def _open(self) -> Connection:
        self.opened += 1
        self._opening += 1
        try:
            return await dial(self._endpoint, self._connect_timeout)
        finally:
            self._opening -= 1

    def _count(self) -> int:
        return len(self._idle) + len(self._busy) + self._opening

    def close(self) -> None:
        """Close every connection."""
        for connection in [*self._idle, *self._busy]:
            connection.close()
        self._idle.clear()
