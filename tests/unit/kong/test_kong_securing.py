"""TLS straight on the socket does what asyncio's own does, byte for byte, and holds nothing while it is idle."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import socket
import ssl
import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import pytest

from konverge.kong.securing import HIGH, LOW, TlsTransport, secure
from konverge.pki.authority import Authority, request_controller, request_proxies
from konverge.pki.bundle import read_bundle
from konverge.pki.contexts import build_client_context, build_server_context

NAME = "pod.adm.kong.svc"
LIMIT = 60
"""Seconds after which a wait counts as for ever."""
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Contexts:
    """Both sides' contexts under one authority, and a client of another authority."""

    def __init__(self) -> None:
        now = datetime.now(UTC)
        ours, foreign = Authority.create("edge", now), Authority.create("other", now)
        bundle = read_bundle(ours.pem, now)
        self.server = build_server_context(ours.issue(request_proxies("adm", "kong"), now), bundle)
        self.client = build_client_context(bundle, ours.issue(request_controller("edge"), now))
        self.stranger = build_client_context(bundle, foreign.issue(request_controller("edge"), now))


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    return Contexts()


class Recorder(asyncio.Protocol):
    """Notes everything that a transport tells."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.eof = False
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.writable = asyncio.Event()
        self.writable.set()
        self.pauses = 0
        self.came = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.came.set()

    def eof_received(self) -> None:
        self.eof = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)
        self.writable.set()

    def pause_writing(self) -> None:
        self.pauses += 1
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    async def receive(self, size: int) -> bytes:
        async with asyncio.timeout(LIMIT):
            while len(self.data) < size:
                self.came.clear()
                await self.came.wait()
        return bytes(self.data)


@asynccontextmanager
async def served(serve: Serve, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Run a TLS server of asyncio's own; yields its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def connect(port: int, context: ssl.SSLContext, name: str = NAME, buffer: int = 0) -> Recorder:
    plain = socket.socket()
    plain.setblocking(False)
    if buffer:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
    recorder = Recorder()
    async with asyncio.timeout(LIMIT):
        transport = await secure(plain, context, name, recorder)
    assert transport is recorder.transport
    return recorder


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100_000):
        writer.write(data)
        await writer.drain()


async def swallow(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(100_000):
        pass


async def test_random_pieces_come_back_as_they_went(contexts: Contexts) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    pieces = [chance.randbytes(chance.choice([0, 1, 100, 16_384, 16_385, 70_000, 400_000])) for _ in range(40)]
    async with served(echo, contexts.server) as port:
        recorder = await connect(port, contexts.client, buffer=20_000)
        for number, piece in enumerate(pieces):
            async with asyncio.timeout(LIMIT):
                await recorder.writable.wait()
            kinds: tuple[Callable[[bytes], bytes | bytearray | memoryview], ...] = (bytes, bytearray, memoryview)
            given = kinds[number % 3](piece)
            recorder.transport.write(given)
            if isinstance(given, bytearray):
                given[:] = bytes(len(given))  # what was given may be used again at once
            if number % 7 == 0:
                recorder.transport.pause_reading()
                assert not recorder.transport.is_reading()
                await asyncio.sleep(0)
                recorder.transport.resume_reading()
        whole = b"".join(pieces)
        assert hashlib.sha256(await recorder.receive(len(whole))).digest() == hashlib.sha256(whole).digest()
        recorder.transport.close()
        assert await asyncio.wait_for(recorder.lost, LIMIT) is None
        assert recorder.transport.get_extra_info("socket").fileno() == -1


async def test_what_is_asked_of_a_connection_is_answered(contexts: Contexts) -> None:
    async with served(echo, contexts.server) as port:
        recorder = await connect(port, contexts.client)
        transport = recorder.transport
        assert transport.get_extra_info("peername") == ("127.0.0.1", port)
        assert transport.get_extra_info("sslcontext") is contexts.client
        assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert transport.get_protocol() is recorder
        assert transport.is_reading()
        assert not transport.can_write_eof()
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        assert transport.get_write_buffer_limits() == (LOW, HIGH)
        with pytest.raises(ValueError, match="does not hold"):
            transport.set_write_buffer_limits(high=1, low=2)
        assert "open" in repr(transport)
        other = Recorder()
        transport.set_protocol(other)
        transport.writelines([b"one", b"two"])
        assert await other.receive(6) == b"onetwo"
        transport.abort()
        assert await asyncio.wait_for(other.lost, LIMIT) is None
        assert "lost" in repr(transport)


async def test_a_peer_that_does_not_read_pauses_the_writer_and_close_sends_the_rest(contexts: Contexts) -> None:
    go, sizes = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await go.wait()
        sizes.set_result(len(await reader.read(-1)))

    async with served(serve, contexts.server) as port:
        recorder = await connect(port, contexts.client, buffer=20_000)
        sent = 0
        while recorder.writable.is_set():
            recorder.transport.write(bytes(32_768))
            sent += 32_768
        assert recorder.transport.get_write_buffer_size() > HIGH
        recorder.transport.close()
        recorder.transport.write(b"nothing after the end")
        assert not recorder.lost.done()
        go.set()
        assert await asyncio.wait_for(sizes, LIMIT) == sent
        assert await asyncio.wait_for(recorder.lost, LIMIT) is None
        assert recorder.pauses == 1
        assert recorder.writable.is_set()


async def test_an_end_of_the_peer_is_an_end_of_file(contexts: Contexts) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with served(serve, contexts.server) as port:
        recorder = await connect(port, contexts.client)
        assert await asyncio.wait_for(recorder.lost, LIMIT) is None
        assert (bytes(recorder.data), recorder.eof) == (b"bye", True)
        assert recorder.transport.is_closing()


async def test_what_came_before_a_reset_is_handed_on(contexts: Contexts) -> None:
    reset = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"413")
        await writer.drain()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        reset.set()

    async with served(serve, contexts.server) as port:
        recorder = await connect(port, contexts.client)
        recorder.transport.pause_reading()
        recorder.transport.write(b"x")
        await asyncio.wait_for(reset.wait(), LIMIT)
        recorder.transport.resume_reading()
        async with asyncio.timeout(LIMIT):
            while not recorder.lost.done():
                recorder.transport.write(bytes(100_000))
                await asyncio.sleep(0)
        assert isinstance(recorder.lost.result(), OSError)
        assert bytes(recorder.data) == b"413"


async def test_a_refused_certificate_is_told_by_the_alert(contexts: Contexts) -> None:
    """The server's verdict comes after the client's side of the handshake is over (RFC 8446 section 4.4.2.4)."""

    def refuse(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        wrapped = contexts.server.wrap_socket(peer, server_side=True, do_handshake_on_connect=False)
        wrapped.settimeout(LIMIT)
        with pytest.raises(ssl.SSLCertVerificationError):
            wrapped.do_handshake()
        with socket.socket(fileno=wrapped.detach()) as bare, suppress(ConnectionResetError):
            bare.settimeout(LIMIT)
            while bare.recv(65_536):  # closing over what is unread would be a reset, which may overtake the alert
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        refusing = asyncio.create_task(asyncio.to_thread(refuse, listener))
        recorder = await connect(listener.getsockname()[1], contexts.stranger)
        lost = await asyncio.wait_for(recorder.lost, LIMIT)
        await refusing
    assert isinstance(lost, ssl.SSLError)
    assert "ALERT" in str(lost.reason)


async def test_a_handshake_that_fails_or_is_given_up_closes_the_socket(contexts: Contexts) -> None:
    async with served(swallow, contexts.server) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(port, contexts.client, "pod.other.kong.svc")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        plain = socket.create_connection(mute.getsockname())
        plain.setblocking(False)
        work = asyncio.ensure_future(secure(plain, contexts.client, NAME, Recorder()))
        peer, _ = await asyncio.to_thread(mute.accept)
        with peer:
            assert await asyncio.to_thread(peer.recv, 1), "the handshake has begun"
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            peer.settimeout(LIMIT)
            while await asyncio.to_thread(peer.recv, 65_536):
                pass
        assert plain.fileno() == -1


async def test_a_protocol_that_fails_loses_its_connection(contexts: Contexts) -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            raise ArithmeticError(len(data))

    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    async with served(echo, contexts.server) as port:
        recorder = await connect(port, contexts.client)
        failing = Failing()
        recorder.transport.set_protocol(failing)
        recorder.transport.write(b"x")
        assert isinstance(await asyncio.wait_for(failing.lost, LIMIT), ArithmeticError)
        assert len(told) == 1


async def test_an_idle_connection_holds_no_buffers(contexts: Contexts) -> None:
    """asyncio's TLS layer took 256 KiB at once and more after the first large piece."""
    size, count = 2_000_000, 10

    async with served(echo, contexts.server) as port:
        first = await connect(port, contexts.client)
        own = [tracemalloc.Filter(True, "*/konverge/kong/securing.py"), tracemalloc.Filter(True, "*/ssl.py")]
        tracemalloc.start()
        try:
            recorders = [first]
            for _ in range(count):
                recorder = await connect(port, contexts.client)
                recorders.append(recorder)
                for _ in range(size // 50_000):
                    await asyncio.wait_for(recorder.writable.wait(), LIMIT)
                    recorder.transport.write(bytes(50_000))
                await recorder.receive(size)
                recorder.data = bytearray()
            gc.collect()
            held = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(own).statistics("filename"))
        finally:
            tracemalloc.stop()
        assert 0 < held / count < 16_384
        for recorder in recorders:
            recorder.transport.abort()
            await recorder.lost
