"""Real connections through the listeners: bytes, half-closes, resets, endpoints that come and go."""

import asyncio
import contextlib
import hashlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from konverge.lab.balancer import listening
from konverge.lab.balancer.choosing import Chooser
from konverge.lab.balancer.counting import Counts
from konverge.lab.balancer.faults import Fault, Faults
from konverge.lab.balancer.listening import Listeners
from konverge.lab.balancer.serving import serving
from konverge.lab.balancer.tables import Address, Rule

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
RESET = struct.pack("ii", 1, 0)


def free_address() -> Address:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        found = probe.getsockname()
        return found[0], found[1]


@pytest.fixture
async def balancer() -> AsyncIterator[tuple[Listeners, Counts]]:
    counts = Counts()
    listeners = Listeners(Chooser(in_turn=True), counts)
    yield listeners, counts
    listeners.close()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Handler], Awaitable[Address]]]:
    servers = []

    async def start(handler: Handler) -> Address:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        servers.append(server)
        found = server.sockets[0].getsockname()
        return found[0], found[1]

    yield start
    for server in servers:
        server.close()


def point(listeners: Listeners, front: Address, *backends: Address) -> None:
    old = dict(listeners.rules)
    listeners.apply(old, {**old, front: Rule("n/web", "http", backends)})


async def answer_name(name: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readline():
        writer.write(name + b"\n")
    writer.close()


def named(name: bytes) -> Handler:
    return lambda reader, writer: answer_name(name, reader, writer)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"?\n")
    return (await reader.readline()).strip()


async def expect_reset(front: Address) -> None:
    """The reset may arrive while asyncio still finishes the connect."""

    async def read() -> None:
        reader, writer = await asyncio.open_connection(*front)
        try:
            await reader.read()
        finally:
            writer.close()

    with pytest.raises(ConnectionResetError):
        await read()


async def test_connection_keeps_its_endpoint_when_the_endpoint_leaves_the_service(balancer, serve) -> None:
    listeners, counts = balancer
    front = free_address()
    one, two = await serve(named(b"one")), await serve(named(b"two"))
    point(listeners, front, one)
    old = await asyncio.open_connection(*front)
    assert await ask(*old) == b"one"
    point(listeners, front, two)
    new = await asyncio.open_connection(*front)
    assert await ask(*new) == b"two"
    assert await ask(*old) == b"one"
    point(listeners, front)
    assert await ask(*old) == b"one"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*front)
    assert sum(counts.active.values()) == 2
    for _, writer in (old, new):
        writer.close()


async def test_megabytes_arrive_unchanged_both_ways_and_half_closes_pass_through(balancer, serve) -> None:
    async def echo_digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await reader.read()
        writer.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body[::-1])
        await writer.drain()
        writer.close()

    listeners, counts = balancer
    front = free_address()
    point(listeners, front, await serve(echo_digest))
    body = os.urandom(6_000_000)
    reader, writer = await asyncio.open_connection(*front)
    writer.write(body)
    writer.write_eof()
    digest = (await reader.readline()).strip().decode()
    assert digest == hashlib.sha256(body).hexdigest()
    assert await reader.read() == body[::-1]
    writer.close()
    await _until(lambda: sum(counts.active.values()) == 0)
    assert sum(counts.resets.values()) == 0
    assert counts.bytes == 2 * len(body) + 65


async def test_slow_reader_holds_the_sender_back(balancer, serve) -> None:
    sent = 0
    started = asyncio.Event()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            while sent < 400_000_000:
                writer.write(b"x" * 100_000)
                started.set()
                await writer.drain()
                sent += 100_000
        writer.close()

    listeners, _ = balancer
    front = free_address()
    point(listeners, front, await serve(pour))
    client = socket.create_connection(front)
    await started.wait()
    seen = -1
    while seen != sent:
        seen = sent
        await asyncio.sleep(0.1)
    assert sent < 50_000_000
    client.close()


async def test_reset_of_an_endpoint_reaches_the_client_as_a_reset(balancer, serve) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()

    listeners, counts = balancer
    front = free_address()
    point(listeners, front, await serve(reset))
    reader, writer = await asyncio.open_connection(*front)
    writer.write(b"?\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert sum(counts.resets.values()) == 1
    writer.close()


async def test_answer_sent_before_the_endpoint_closed_on_a_talking_client_is_delivered(balancer, serve) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"413 too large\n")
        writer.close()

    listeners, _ = balancer
    front = free_address()
    point(listeners, front, await serve(refuse))
    reader, writer = await asyncio.open_connection(*front)
    writer.write(b"POST\n")
    assert await reader.readline() == b"413 too large\n"
    writer.close()


async def test_dead_endpoint_resets_the_client_and_is_counted(balancer) -> None:
    listeners, counts = balancer
    front, dead = free_address(), free_address()
    point(listeners, front, dead)
    await expect_reset(front)
    assert counts.refused["n/web", "http", f"{dead[0]}:{dead[1]}"] == 1
    assert 'lab_balancer_refused_total{service="n/web",port="http"' in counts.render()


async def test_waiting_connections_are_served_when_the_last_endpoint_goes(balancer, serve) -> None:
    listeners, _ = balancer
    front = free_address()
    one = await serve(named(b"one"))
    point(listeners, front, one)
    # Connected for the kernel, but not accepted yet: the loop does not run in between.
    clients = [socket.create_connection(front) for _ in range(20)]
    point(listeners, front)
    for client in clients:
        client.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=client)
        assert await ask(reader, writer) == b"one"
        writer.close()


async def test_removed_service_listens_no_more(balancer, serve) -> None:
    listeners, _ = balancer
    front = free_address()
    point(listeners, front, await serve(named(b"one")))
    assert front in listeners.open
    listeners.apply(dict(listeners.rules), {})
    assert not listeners.open
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*front)


async def test_faults_delay_drop_and_reset_new_connections(balancer, serve) -> None:
    listeners, counts = balancer
    front = free_address()
    point(listeners, front, await serve(named(b"one")))
    listeners.faults = Faults(targets={"n/web": Fault(delay=0.05)})
    started = asyncio.get_running_loop().time()
    reader, writer = await asyncio.open_connection(*front)
    assert await ask(reader, writer) == b"one"
    assert asyncio.get_running_loop().time() - started >= 0.05
    writer.close()
    listeners.faults = Faults(targets={"n/web": Fault(drop=True)})
    reader, writer = await asyncio.open_connection(*front)
    writer.write(b"?\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await reader.read()
    writer.close()
    await _until(lambda: sum(counts.refused.values()) == 1)
    listeners.faults = Faults(targets={"n/web": Fault(reset_share=1.0)})
    await expect_reset(front)


async def test_port_that_needs_privileges_moves_by_8000(balancer, serve, monkeypatch) -> None:
    real = listening.listen_on
    bound: list[Address] = []

    def refuse_low_ports(address: Address) -> socket.socket:
        if address[1] < 1024:
            raise PermissionError(13, "Permission denied")
        bound.append(address)
        return real(("127.0.0.1", 0))

    monkeypatch.setattr(listening, "listen_on", refuse_low_ports)
    listeners, _ = balancer
    point(listeners, ("127.20.8.2", 80), await serve(named(b"one")))
    assert bound == [("127.20.8.2", 8080)]
    assert listeners.moved == {("127.20.8.2", 80): ("127.20.8.2", 8080)}


async def test_address_that_is_taken_is_reported_and_the_others_work(balancer, serve) -> None:
    listeners, _ = balancer
    backend = await serve(named(b"one"))
    with contextlib.closing(socket.socket()) as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()
        front = free_address()
        point(listeners, taken, backend)
        point(listeners, front, backend)
        assert "in use" in listeners.failed[taken]
    reader, writer = await asyncio.open_connection(*front)
    assert await ask(reader, writer) == b"one"
    writer.close()


class FakeBalancer:
    """What the HTTP endpoint needs of a balancer."""

    def __init__(self, listeners: Listeners, counts: Counts) -> None:
        self.listeners, self.counts = listeners, counts

    def describe(self) -> dict[str, object]:
        return {"rules": []}

    def inject(self, faults: Faults) -> None:
        self.listeners.faults = faults


async def test_faults_are_set_over_http_and_unknown_words_are_refused(balancer) -> None:
    fake = FakeBalancer(*balancer)
    async with serving(fake, "127.0.0.1", 0) as (host, port), aiohttp.ClientSession() as session:
        url = f"http://{host}:{port}"
        body = {"targets": {"n/web": {"drop": True}}}
        async with session.put(f"{url}/lab/faults", json=body) as response:
            assert response.status == 200
        assert fake.listeners.faults.targets["n/web"].drop
        async with session.put(f"{url}/lab/faults", json={"target": {}}) as response:
            assert response.status == 422
        for path in ("/healthz", "/metrics", "/lab/state", "/lab/faults"):
            async with session.get(url + path) as response:
                assert response.status == 200


async def _until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not check():  # noqa: ASYNC110 - counters cannot be awaited
            await asyncio.sleep(0.005)
