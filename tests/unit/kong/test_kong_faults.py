"""Whatever breaks on the way, at whichever byte: a push ends in the true outcome and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from konverge.kong import exchanging
from konverge.kong.admin import AdminClient
from konverge.kong.classifying import predict_hash
from konverge.kong.explaining import find_error
from konverge.kong.outcomes import (
    Busy,
    IdentityCause,
    IdentityRefused,
    PushOutcome,
    Refused,
    Stored,
    Unexpected,
    Unknown,
    Unreachable,
    UnreachableCause,
)
from konverge.pki.authority import Authority, Identity, request_controller, request_proxies
from konverge.pki.bundle import read_bundle
from konverge.pki.contexts import build_client_context, build_server_context

NAME = "gw-1.adm.kong.svc"
CONTENT = b'{"_format_version":"3.0","services":[%b]}' % b",".join(
    b'{"name":"s","host":"secret-h"}' for _ in range(9000)
)
LARGE = CONTENT.ljust(40_000_000)
HASH, OTHER = predict_hash(CONTENT), "1" * 32
CREATED = b'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n{"services":'
REFUSED = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n"
    b'{"code":14,"flattened_errors":[{"entity_type":"route","entity_name":"r","errors":[{"message":"no"}]},'
)
HEAD, ALL = -1, -2
"""Read to the end of the headers; read all of the request."""


@dataclass
class Fault:
    """What becomes of a POST: so many bytes of it are read, this is said, then the connection ends."""

    read: int = ALL
    say: bytes = b""
    end: str = "reset"
    times: int = 10**6


@dataclass
class FaultyGateway:
    """Serves ``GET /status`` well and every POST badly."""

    tls: ssl.SSLContext
    fault: Fault
    hash: str = OTHER
    posts: int = 0
    port: int = 0
    down_after: bool = False
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._run, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while await self._serve(reader, writer):
                pass
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # cancelled by stop(), or the other side went away
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if self.fault.read >= 0 and self.fault.times > self.posts:
            begin = await reader.readexactly(min(self.fault.read, 4)) if self.fault.read else b""
            if begin != b"GET ":
                return await self._break(reader, writer, len(begin))
            head = begin + await reader.readuntil(b"\r\n\r\n")
        else:
            head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            body = b'{"configuration_hash":"%b"}' % self.hash.encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            return True
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if b"100-continue" in head:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.fault.read == ALL:
            await reader.readexactly(length)
        return await self._break(reader, writer, len(head))

    async def _break(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, had: int) -> bool:
        self.posts += 1
        if self.fault.read > had:
            await reader.readexactly(self.fault.read - had)
        if self.posts > self.fault.times:
            writer.write(b'HTTP/1.1 201 Created\r\nContent-Length: 7\r\n\r\n{"a":1}')
            return True
        writer.write(self.fault.say)
        await writer.drain()
        if self.down_after:
            assert self._server is not None
            self._server.close()
        if self.fault.end == "hang":
            await asyncio.Event().wait()
        if self.fault.end == "keep":
            return True
        if self.fault.end == "reset":
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        return False


class World:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.authority = Authority.create("edge", self.now)
        self.bundle = read_bundle(self.authority.pem, self.now)
        self.server = self.authority.issue(request_proxies("adm", "kong"), self.now)
        self.client = self.authority.issue(request_controller("edge"), self.now)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def count_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def watching() -> AsyncIterator[None]:
    """Assert that nothing is open or running afterwards that was not before."""
    before = count_files()
    yield
    deadline = time.monotonic() + 20
    while count_files() > before or len(asyncio.all_tasks()) > 1:
        assert time.monotonic() < deadline, f"left behind: {asyncio.all_tasks()}, {count_files() - before} files"
        await asyncio.sleep(0.01)


async def push(
    world: World,
    gateway: FaultyGateway,
    *,
    content: bytes = CONTENT,
    timeout: float = 60.0,
    client: Identity | None = None,
    warm: bool = False,
) -> PushOutcome:
    context = build_client_context(world.bundle, client or world.client)
    async with watching():
        await gateway.start()
        url = f"https://127.0.0.1:{gateway.port}"
        try:
            async with AdminClient(url, context=context, server_name=NAME) as admin:
                if warm:
                    await admin.status()
                return await admin.push(content, timeout)
        finally:
            await gateway.stop()


def gateway_of(world: World, fault: Fault, digest: str = OTHER, **options: bool) -> FaultyGateway:
    return FaultyGateway(build_server_context(world.server, world.bundle), fault, digest, **options)


@pytest.mark.parametrize("end", ["reset", "close"])
@pytest.mark.parametrize("read", [0, 1, 20, HEAD, 1000, 100_000])
async def test_broken_before_the_last_byte(world: World, read: int, end: str) -> None:
    """The client cannot know how much arrived of what the kernel took; it never says stored, and never hangs."""
    gateway = gateway_of(world, Fault(read, end=end, times=1))
    outcome = await push(world, gateway)
    assert isinstance(outcome, (Unreachable, Unknown))
    if isinstance(outcome, Unknown):
        assert outcome.observed == OTHER
    assert gateway.posts == 1, "a fresh connection that breaks is not tried again"


@pytest.mark.parametrize("read", [HEAD, 1_000_000])
async def test_broken_while_the_body_is_still_being_sent_cannot_have_stored_it(
    world: World, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanging, "CONTINUE_WAIT", 0.1)
    outcome = await push(world, gateway_of(world, Fault(read)), content=LARGE)
    assert isinstance(outcome, Unreachable)
    assert outcome.cause in (UnreachableCause.RESET, UnreachableCause.CLOSED)


@pytest.mark.parametrize("end", ["reset", "close"])
@pytest.mark.parametrize("said", [0, 1, 9, 20, 60])
async def test_broken_after_the_last_byte_is_settled_by_the_hash(world: World, said: int, end: str) -> None:
    fault = Fault(ALL, CREATED[:said], end)
    assert await push(world, gateway_of(world, fault, HASH)) == Stored(HASH, read_back=True)
    outcome = await push(world, gateway_of(world, fault, OTHER))
    assert isinstance(outcome, Unknown)
    assert (outcome.observed, outcome.status) == (OTHER, None)


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_broken_in_the_body_of_the_answer(world: World, end: str) -> None:
    assert await push(world, gateway_of(world, Fault(ALL, CREATED, end))) == Stored(HASH)
    outcome = await push(world, gateway_of(world, Fault(ALL, REFUSED, end)))
    assert isinstance(outcome, Refused)
    assert outcome.truncated
    assert [error.name for error in outcome.errors] in ([], ["r"]), "a reset may overtake what was said before it"


async def test_a_kept_connection_that_breaks_is_replaced_exactly_once(world: World) -> None:
    gateway = gateway_of(world, Fault(ALL, times=1))
    assert await push(world, gateway, warm=True) == Stored(HASH)
    assert gateway.posts == 2
    gateway = gateway_of(world, Fault(ALL))
    assert isinstance(await push(world, gateway, warm=True), Unknown)
    assert gateway.posts == 2


async def test_slow_is_waited_for_and_too_slow_is_unknown(world: World) -> None:
    gateway = gateway_of(world, Fault(ALL, end="hang"), HASH)
    assert await push(world, gateway, timeout=1.0, warm=True) == Stored(HASH, read_back=True)
    outcome = await push(world, gateway_of(world, Fault(ALL, end="hang")), timeout=1.0, warm=True)
    assert isinstance(outcome, Unknown)
    assert "within 1 s" in outcome.message
    stalled = await push(world, gateway_of(world, Fault(HEAD, end="hang")), content=LARGE, timeout=0.5)
    assert isinstance(stalled, Unreachable)
    assert stalled.cause is UnreachableCause.TIMED_OUT


async def test_a_restart_in_mid_push(world: World) -> None:
    gateway = gateway_of(world, Fault(ALL), HASH, down_after=True)
    outcome = await push(world, gateway)
    assert isinstance(outcome, Unknown)
    assert outcome.observed is None, "nobody listens any more"
    assert find_error(outcome, "gw-1") is not None


def say(code: int, body: bytes, kind: str = "application/json", more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d X\r\nContent-Type: %b\r\n%bContent-Length: %d\r\n\r\n" % (
        code,
        kind.encode(),
        more,
        len(body),
    )
    return head + body


async def test_statuses(world: World) -> None:
    oops = b'{"message":"An unexpected error occurred"}'
    page = b"<html><head><title>400 The SSL certificate error</title></head></html>"
    for words, digest, expected in (
        (say(500, oops), HASH, Stored(HASH, read_back=True)),
        (say(503, oops), OTHER, Unknown("An unexpected error occurred", 503, OTHER)),
        (say(429, b"{}", more=b"Retry-After: 3\r\n"), OTHER, Busy(3.0)),
        (say(404, b"<html></html>", "text/html"), OTHER, Unexpected(404)),
        (say(400, page, "text/html"), OTHER, IdentityRefused(IdentityCause.UNDIAGNOSED, "The SSL certificate error")),
        (say(201, b'{"a":1}'), OTHER, Stored(HASH)),
    ):
        gateway = gateway_of(world, Fault(ALL, words, "keep"), digest)
        assert await push(world, gateway) == expected
        assert gateway.posts == 1


async def test_a_storm_of_429_is_no_storm_of_posts(world: World) -> None:
    gateway = gateway_of(world, Fault(ALL, say(429, b"{}", more=b"Retry-After: 10\r\n"), "keep"))
    for number in range(1, 4):
        assert await push(world, gateway) == Busy(10.0)
        assert gateway.posts == number


async def test_nobody_is_there(world: World) -> None:
    context = build_client_context(world.bundle, world.client)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with watching(), AdminClient(f"https://127.0.0.1:{port}", context=context, server_name=NAME) as admin:
        outcome = await admin.push(CONTENT)
    assert isinstance(outcome, Unreachable)
    assert outcome.cause is UnreachableCause.REFUSED


@pytest.mark.parametrize("kind", ["expired", "stranger", "server"])
async def test_a_certificate_that_the_proxy_does_not_take(world: World, kind: str) -> None:
    """A TLS 1.3 server refuses by an alert, after our side of the handshake is done; nginx by a page (above)."""
    early = world.now - timedelta(days=30)
    issuer = Authority.create("stranger", early) if kind == "stranger" else world.authority
    past = Authority.create("edge", early)
    tls = build_server_context(world.server, world.bundle)
    if kind == "expired":
        client = past.issue(request_controller("edge"), early, lifetime=timedelta(days=1))
        tls = build_server_context(world.server, read_bundle(past.pem, world.now))
    elif kind == "server":
        client = world.server
    else:
        client = issuer.issue(request_controller("edge"), world.now)
    gateway = FaultyGateway(tls, Fault(ALL, CREATED), OTHER)
    outcome = await push(world, gateway, client=client)
    assert isinstance(outcome, (IdentityRefused, Unreachable, Unknown)), "a reset may overtake the alert"
    assert gateway.posts == 0, "no configuration over a channel that was not accepted"
    error = find_error(outcome, "gw-1")
    assert error is not None
    assert b"secret-h".decode() not in str(error)


async def test_a_jump_of_the_wall_clock_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86_400 * 400)
    assert await push(world, gateway_of(world, Fault(ALL, say(201, b'{"a":1}'), "keep"), HASH)) == Stored(HASH)
    monkeypatch.setattr(time, "time", lambda: real() - 86_400 * 400)
    assert await push(world, gateway_of(world, Fault(ALL, b"", "reset"), HASH)) == Stored(HASH, read_back=True)
