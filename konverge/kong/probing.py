"""Asks a gateway's proxy listener over several fresh connections, and says what each of them got.

``reuseport`` spreads new connections over the workers, and every worker rebuilds its router on its own: only
several connections, all new, show that the whole gateway routes by a configuration.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from konverge.errors import UsageError
from konverge.kong.failures import find_cause
from konverge.kong.marker import MarkerRequest

CONNECTIONS = 8
"""Fresh connections of one probe: with 2 workers the chance that all meet the same one is below 1 %."""
PROBE_TIMEOUT = 5.0
"""Seconds for one connection, from connecting to the last byte."""
PROBE_INTERVAL = 0.05
"""Seconds between two rounds; the routers follow a store after 0.003 s (2 routes) to 0.7 s (10,000)."""
LONGEST_ANSWER = 64 * 1024
"""Bytes of an answer that are read."""


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """The proxy listener to ask. With ``context`` it is asked over TLS, as ``server_name``."""

    host: str
    port: int
    context: ssl.SSLContext | None = None
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """A GET request and what its answer must be; ``body`` None means any body."""

    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    body: bytes | None = None

    @classmethod
    def of_marker(cls, marker: MarkerRequest, revision: int) -> ProbeRequest:
        """Return the request that the marker of this revision answers."""
        return cls(marker.path, marker.headers, 200, str(revision).encode())


@dataclass(frozen=True, slots=True)
class ConnectionResult:
    """What one connection got: HTTP status (0: none), seconds, and the reason where it is not as expected."""

    ok: bool
    status: int
    seconds: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What all connections of one round got."""

    results: tuple[ConnectionResult, ...]

    @property
    def ok(self) -> bool:
        """Whether every connection got what was expected."""
        return bool(self.results) and all(result.ok for result in self.results)

    def describe(self) -> str:
        """Return one sentence such as ``6 of 8 connections as expected; 2: HTTP 404 instead of 200``."""
        good = sum(result.ok for result in self.results)
        rest = Counter(result.reason for result in self.results if not result.ok)
        tail = "".join(f"; {count}: {reason}" for reason, count in rest.most_common(3))
        return f"{good} of {len(self.results)} connections as expected{tail}"


async def probe(
    target: ProbeTarget,
    request: ProbeRequest,
    *,
    connections: int = CONNECTIONS,
    timeout: float = PROBE_TIMEOUT,
) -> ProbeResult:
    """Ask once over each of ``connections`` new connections at the same time; never raises for the gateway."""
    head = _head(target, request)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_ask(target, request, head, timeout)) for _ in range(connections)]
    return ProbeResult(tuple(task.result() for task in tasks))


async def probe_until_ok(
    target: ProbeTarget,
    request: ProbeRequest,
    *,
    within: float,
    connections: int = CONNECTIONS,
    interval: float = PROBE_INTERVAL,
    clock: Callable[[], float] = time.monotonic,
) -> ProbeResult:
    """Repeat the probe until a round is all as expected or ``within`` seconds have passed; return the last."""
    end = clock() + within
    while True:
        timeout = min(max(end - clock(), interval), PROBE_TIMEOUT)
        result = await probe(target, request, connections=connections, timeout=timeout)
        if result.ok or clock() >= end:
            return result
        await asyncio.sleep(interval)


def _head(target: ProbeTarget, request: ProbeRequest) -> bytes:
    headers = {"Host": f"{target.host}:{target.port}", **request.headers, "Connection": "close"}
    lines = [f"GET {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if any("\r" in line or "\n" in line for line in lines):
        raise UsageError("The path or a header of a probe contains a line break")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _ask(target: ProbeTarget, request: ProbeRequest, head: bytes, timeout: float) -> ConnectionResult:
    start = time.monotonic()
    status, body, reason = 0, b"", ""
    try:
        async with asyncio.timeout(timeout):
            status, body = await _exchange(target, head)
    except (OSError, EOFError, ValueError, IndexError, asyncio.LimitOverrunError) as error:
        cause, words = find_cause(error)
        reason = f"{cause.value} ({words})" if not isinstance(error, TimeoutError) else cause.value
    seconds = time.monotonic() - start
    reason = reason or _compare(request, status, body)
    return ConnectionResult(not reason, status, seconds, reason)


def _compare(request: ProbeRequest, status: int, body: bytes) -> str:
    if status != request.status:
        return f"HTTP {status} instead of {request.status}"
    if request.body is not None and body.strip() != request.body.strip():
        return "another body than expected"
    return ""


async def _exchange(target: ProbeTarget, head: bytes) -> tuple[int, bytes]:
    name = (target.server_name or target.host) if target.context else None
    reader, writer = await asyncio.open_connection(
        target.host, target.port, ssl=target.context, server_hostname=name, limit=LONGEST_ANSWER
    )
    try:
        writer.write(head)
        await writer.drain()
        return await _read_answer(reader)
    finally:
        await _abort(writer)


async def _abort(writer: asyncio.StreamWriter) -> None:
    """Close at once; a close_notify would have to wait for the other side."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read status and body of an HTTP/1.1 answer that ends with its length, its last chunk or the connection."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(lines[0].split(" ", 2)[1])
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
    if "chunked" in headers.get("transfer-encoding", ""):
        return status, await _read_chunks(reader)
    length = headers.get("content-length")
    if length is not None:
        return status, await reader.readexactly(min(int(length), LONGEST_ANSWER))
    return status, await reader.read(LONGEST_ANSWER)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while len(body) < LONGEST_ANSWER:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if size == 0:
            return bytes(body)
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return bytes(body)
