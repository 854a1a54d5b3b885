"""A handshake is only a proof when the server has answered as well."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from konverge.errors import Invalid, Unavailable
from konverge.pki.authority import Authority, Identity, request_controller, request_proxies
from konverge.pki.bundle import read_bundle
from konverge.pki.contexts import build_client_context, build_server_context
from konverge.pki.handshake import HandshakeReason, prove
from konverge.pki.resuming import allows_resumption

NAME = "gw-1.adm.kong.svc"


class World:
    """One authority, a proxy's identity and a controller's, all valid now."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.authority = Authority.create("edge", self.now)
        self.bundle = read_bundle(self.authority.pem, self.now)
        self.server = self.authority.issue(request_proxies("adm", "kong"), self.now)
        self.client = self.authority.issue(request_controller("edge"), self.now)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listen(handle: Handle, context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Serve connections until the block ends; every one of them is closed then."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(OSError, EOFError, asyncio.CancelledError):
                await handle(reader, writer)
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=context)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def serve(context: ssl.SSLContext, answer: bytes | None) -> AsyncIterator[int]:
    """Answer each request with fixed bytes; None closes without an answer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is not None:
            writer.write(answer)
            await writer.drain()
            await reader.read()

    async with listen(handle, context) as port:
        yield port


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


def page(title: str) -> bytes:
    body = f"<html><head><title>400 {title}</title></head></html>".encode()
    return b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n" + body


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_accepted(world: World, version: ssl.TLSVersion) -> None:
    listening = build_server_context(world.server, world.bundle, ssl.TLSVersion.TLSv1_2)
    listening.maximum_version = version
    context = build_client_context(world.bundle, world.client, ssl.TLSVersion.TLSv1_2)
    async with serve(listening, OK) as port:
        found = await prove("127.0.0.1", port, NAME, context)
    assert (found.reason, found.verified, found.accepted, found.status) == (HandshakeReason.ACCEPTED, True, True, 200)
    assert found.protocol == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
    assert found.certificate == world.server.certificate


@pytest.mark.parametrize("title", ["The SSL certificate error", "No required SSL certificate was sent"])
async def test_refusal_after_the_handshake(world: World, title: str) -> None:
    async with serve(build_server_context(world.server), page(title)) as port:
        found = await prove("127.0.0.1", port, NAME, build_client_context(world.bundle, world.client))
    assert (found.reason, found.verified, found.accepted, found.message) == (
        HandshakeReason.CLIENT_REFUSED,
        True,
        False,
        title,
    )


async def test_other_answers_prove_that_we_are_let_in(world: World) -> None:
    async with serve(build_server_context(world.server), b"HTTP/1.1 404 Not Found\r\n\r\n") as port:
        found = await prove("127.0.0.1", port, NAME, build_client_context(world.bundle))
    assert found.accepted
    assert found.status == 404


async def test_alert_after_a_tls13_handshake_is_a_refusal(world: World) -> None:
    stranger = Authority.create("other", world.now).issue(request_controller("other"), world.now)
    listening = build_server_context(world.server, world.bundle)
    for identity in (None, stranger):
        with socket.create_server(("127.0.0.1", 0)) as server:
            refusing = asyncio.create_task(asyncio.to_thread(refuse_one, server, listening))
            port = server.getsockname()[1]
            found = await prove("127.0.0.1", port, NAME, build_client_context(world.bundle, identity))
            await refusing
        assert (found.reason, found.verified, found.accepted) == (HandshakeReason.CLIENT_REFUSED, True, False)


def refuse_one(server: socket.socket, context: ssl.SSLContext) -> None:
    """Take one connection; unlike asyncio, a blocking socket does send the alert when the handshake fails.

    The request is read until the client goes: closing a socket with unread bytes sends a reset, and a reset that
    arrives first makes the kernel throw the alert away.
    """
    server.settimeout(10)
    connection, _ = server.accept()
    connection.settimeout(10)
    raw = connection.dup()
    with raw, connection, suppress(OSError):
        with suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)
        raw.settimeout(10)
        raw.shutdown(socket.SHUT_WR)
        while raw.recv(4096):
            pass


async def test_untrusted_server_is_looked_at_and_told_nothing(world: World) -> None:
    asked: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(100))

    wrong_name = "gw-1.other.kong.svc"
    other = read_bundle(Authority.create("other", world.now).pem, world.now)
    async with listen(handle, build_server_context(world.server)) as port:
        for name, bundle, words in ((NAME, other, "issuer"), (wrong_name, world.bundle, "ostname mismatch")):
            found = await prove("127.0.0.1", port, name, build_client_context(bundle, world.client))
            assert found.reason is HandshakeReason.SERVER_UNTRUSTED
            assert words in found.message
            assert (found.verified, found.accepted) == (False, False)
            assert found.certificate == world.server.certificate
    assert b"".join(asked) == b""


async def test_nobody_there_and_no_answer(world: World) -> None:
    context = build_client_context(world.bundle)
    async with serve(build_server_context(world.server), None) as port:
        assert (await prove("127.0.0.1", port, NAME, context)).reason is HandshakeReason.NO_ANSWER
    assert (await prove("127.0.0.1", port, NAME, context)).reason is HandshakeReason.UNREACHABLE

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.Event().wait()

    async with listen(hang, None) as port:
        found = await prove("127.0.0.1", port, NAME, context, timeout=0.1)
    assert found.reason is HandshakeReason.UNREACHABLE
    assert "0.1 s" in found.message


async def test_plain_server_is_a_tls_failure(world: World) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await reader.read()

    async with listen(plain, None) as port:
        found = await prove("127.0.0.1", port, NAME, build_client_context(world.bundle))
    assert found.reason is HandshakeReason.TLS_FAILED


def test_contexts_verify_always_and_leave_no_file(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    context = build_client_context(world.bundle, world.client)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert not list(tmp_path.iterdir())
    with pytest.raises(Invalid):
        build_client_context(world.bundle, minimum=ssl.TLSVersion.TLSv1_1)


def test_without_anonymous_memory_the_key_goes_through_a_pipe(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    load = ssl.SSLContext.load_cert_chain

    def watch(self: ssl.SSLContext, *paths: str) -> None:
        seen.extend(stat.S_ISFIFO(os.stat(path).st_mode) for path in paths)
        load(self, *paths)

    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watch)
    before = os.listdir("/proc/self/fd")
    build_client_context(world.bundle, world.client)
    assert seen == [True, True]
    assert not list(tmp_path.iterdir())
    endless = Identity(world.client.chain * 200, world.client.key)
    with pytest.raises(Invalid) as caught:
        build_client_context(world.bundle, endless)
    assert caught.value.reason == "ChainTooLong"
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("allowed", [True, False])
async def test_resumption_is_found_out(world: World, version: ssl.TLSVersion, allowed: bool) -> None:
    listening = build_server_context(world.server, minimum=ssl.TLSVersion.TLSv1_2)
    listening.maximum_version = version
    context = build_client_context(world.bundle, world.client, ssl.TLSVersion.TLSv1_2)
    if not allowed:
        listening.options |= ssl.OP_NO_TICKET
        listening.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
    async with serve(listening, OK) as port:
        # Without tickets, TLS 1.2 could resume by session id; a server context without a session id context
        # refuses that, as nginx does with its cache off.
        assert await allows_resumption("127.0.0.1", port, NAME, context) is allowed
    with pytest.raises(Unavailable):
        await allows_resumption("127.0.0.1", port, NAME, context)
