from __future__ import annotations

import asyncio
import socket

import pytest
from scripted_server import OK, Peer, answer_always, serve

from konverge.lab.load.connections import Endpoint, dial
from konverge.lab.load.outcomes import ExchangeFailed, Kind
from konverge.lab.load.pooling import Pool, may_retry

GET = [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]
POST = [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", b"hi"]


async def failure_of(pool: Pool, method: str = "GET", request: list[bytes] = GET) -> ExchangeFailed:
    with pytest.raises(ExchangeFailed) as caught:
        await pool.send(method, request, 2.0)
    return caught.value


async def until_closed(pool: Pool) -> None:
    """Let the loop turn until it has seen that the idle connection was closed."""
    async with asyncio.timeout(2):
        while not all(connection.closed for connection in pool._idle):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)


async def test_a_kept_connection_is_used_again() -> None:
    async with serve(answer_always) as server:
        pool = Pool(Endpoint("127.0.0.1", server.port), 1, 1.0)
        for _ in range(3):
            response, retried = await pool.send("GET", GET, 2.0)
            assert (response.status, bytes(response.body), retried) == (200, b"ok", False)
        assert (len(server.peers), pool.opened) == (1, 1)
        pool.close()


async def test_connections_take_turns_once_all_are_open() -> None:
    async with serve(answer_always) as server:
        pool = Pool(Endpoint("127.0.0.1", server.port), 3, 1.0)
        for _ in range(9):
            await pool.send("GET", GET, 2.0)
        assert [peer.requests for peer in server.peers] == [3, 3, 3]
        pool.close()


async def test_size_zero_opens_a_connection_for_every_request() -> None:
    async with serve(answer_always) as server:
        pool = Pool(Endpoint("127.0.0.1", server.port), 0, 1.0)
        for _ in range(3):
            await pool.send("GET", GET, 2.0)
        assert len(server.peers) == 3


async def close_after_one(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(OK)


@pytest.mark.parametrize(("method", "request_parts"), [("GET", GET), ("POST", POST)])
async def test_an_end_that_the_loop_has_seen_harms_no_request(method: str, request_parts: list[bytes]) -> None:
    async with serve(close_after_one) as server:
        pool = Pool(Endpoint("127.0.0.1", server.port), 1, 1.0)
        await pool.send("GET", GET, 2.0)
        await until_closed(pool)
        _, retried = await pool.send(method, request_parts, 2.0)
        assert not retried
        assert (pool.opened, pool.discarded) == (2, 1)


async def test_an_end_that_only_the_socket_knows_is_found_before_reuse() -> None:
    async with serve(answer_always) as server:
        pool = Pool(Endpoint("127.0.0.1", server.port), 1, 1.0)
        await pool.send("GET", GET, 2.0)
        connection = pool._idle[0]
        # The server's end arrives in the kernel while this test does not give the loop a turn.
        peer_socket = server.peers[0].writer.get_extra_info("socket")
        socket.socket.shutdown(peer_socket._sock, socket.SHUT_WR)
        assert not connection.closed
        assert connection.is_stale()
        _, retried = await pool.send("POST", POST, 2.0)
        assert not retried
        assert pool.discarded == 1
        pool.close()


async def end_second_request(peer: Peer) -> None:
    await close_after_one(peer)
    if peer.number == 0:
        await peer.read_request()
    else:
        await answer_always(peer)


async def reset_second_request(peer: Peer) -> None:
    await close_after_one(peer)
    if peer.number == 0:
        await peer.read_request()
        peer.reset()
    else:
        await answer_always(peer)


@pytest.mark.parametrize("script", [end_second_request, reset_second_request])
async def test_get_on_a_dying_kept_connection_is_retried_once(script: object) -> None:
    async with serve(script) as server:  # type: ignore[arg-type]
        pool = Pool(Endpoint("127.0.0.1", server.port), 1, 1.0)
        assert (await pool.send("GET", GET, 2.0))[1] is False
        response, retried = await pool.send("GET", GET, 2.0)
        assert (response.status, retried) == (200, True)
        assert len(server.peers) == 2
        pool.close()


@pytest.mark.parametrize(
    ("script", "kind"), [(end_second_request, Kind.EOF_BEFORE_RESPONSE), (reset_second_request, Kind.RESET)]
)
async def test_post_on_a_dying_kept_connection_fails(script: object, kind: Kind) -> None:
    async with serve(script) as server:  # type: ignore[arg-type]
        pool = Pool(Endpoint("127.0.0.1", server.port), 1, 1.0)
        await pool.send("GET", GET, 2.0)
        failure = await failure_of(pool, "POST", POST)
        assert (failure.kind, failure.written, failure.answered) == (kind, True, False)
        assert len(server.peers) == 1
        pool.close()


async def end_every_request(peer: Peer) -> None:
    if peer.number == 0:
        await close_after_one(peer)
    await peer.read_request()


async def test_the_retry_is_made_once_and_on_a_fresh_connection() -> None:
    async with serve(end_every_request) as server:
        pool = Pool(Endpoint("127.0.0.1", server.port), 1, 1.0)
        await pool.send("GET", GET, 2.0)
        assert (await failure_of(pool)).kind == Kind.EOF_BEFORE_RESPONSE
        assert len(server.peers) == 2


async def test_a_fresh_connection_that_ends_is_never_retried() -> None:
    async with serve(end_every_request) as server:
        server.peers.append(Peer(asyncio.StreamReader(), None, -1))  # type: ignore[arg-type]
        pool = Pool(Endpoint("127.0.0.1", server.port), 4, 1.0)
        assert (await failure_of(pool)).kind == Kind.EOF_BEFORE_RESPONSE
        assert len(server.peers) == 2


async def send_half_a_body(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(OK)
    await peer.read_request()
    await peer.write(OK[:-1])


async def test_a_response_that_has_begun_is_never_retried() -> None:
    async with serve(send_half_a_body) as server:
        pool = Pool(Endpoint("127.0.0.1", server.port), 1, 1.0)
        await pool.send("GET", GET, 2.0)
        failure = await failure_of(pool)
        assert (failure.kind, failure.answered) == (Kind.TRUNCATED, True)
        assert len(server.peers) == 1


async def reset_at_once(peer: Peer) -> None:
    await peer.read_request()
    peer.reset()


async def test_a_reset_is_told_from_an_end() -> None:
    async with serve(reset_at_once) as server:
        failure = await failure_of(Pool(Endpoint("127.0.0.1", server.port), 0, 1.0))
        assert failure.kind == Kind.RESET


async def say_nothing(peer: Peer) -> None:
    await peer.read_request()
    await peer.reader.read()


async def test_silence_is_a_timeout_and_closes_the_connection() -> None:
    async with serve(say_nothing) as server:
        pool = Pool(Endpoint("127.0.0.1", server.port), 1, 1.0)
        with pytest.raises(ExchangeFailed) as caught:
            await pool.send("GET", GET, 0.05)
        assert caught.value.kind == Kind.TIMEOUT
        assert not pool._idle


async def test_an_unasked_answer_on_an_idle_connection_is_not_taken_for_the_next() -> None:
    idle = asyncio.Event()

    async def timeout_the_idle(peer: Peer) -> None:
        if peer.number:
            return await answer_always(peer)
        await close_after_one(peer)
        await idle.wait()
        return await peer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")

    async with serve(timeout_the_idle) as server:
        pool = Pool(Endpoint("127.0.0.1", server.port), 1, 1.0)
        await pool.send("GET", GET, 2.0)
        idle.set()
        await until_closed(pool)
        second, retried = await pool.send("GET", GET, 2.0)
        assert (second.status, retried) == (200, False)
        pool.close()


async def test_refused_and_silent_listeners_are_told_apart() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(ExchangeFailed) as caught:
            await dial(Endpoint("127.0.0.1", free.getsockname()[1]), 1.0)
        assert (caught.value.kind, caught.value.written) == (Kind.CONNECT_REFUSED, False)


async def test_a_full_backlog_is_a_connect_timeout() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        with pytest.raises(ExchangeFailed) as caught:
            await dial(Endpoint("127.0.0.1", address[1]), 0.1)
        assert caught.value.kind == Kind.CONNECT_TIMEOUT
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize(
    ("kind", "method", "reused", "answered", "written", "allowed"),
    [
        (Kind.EOF_BEFORE_RESPONSE, "GET", True, False, True, True),
        (Kind.RESET, "DELETE", True, False, True, True),
        (Kind.EOF_BEFORE_RESPONSE, "POST", True, False, False, True),
        (Kind.EOF_BEFORE_RESPONSE, "POST", True, False, True, False),
        (Kind.EOF_BEFORE_RESPONSE, "PATCH", True, False, True, False),
        (Kind.EOF_BEFORE_RESPONSE, "GET", False, False, True, False),
        (Kind.RESET, "GET", True, True, True, False),
        (Kind.TIMEOUT, "GET", True, False, True, False),
        (Kind.CONNECT_REFUSED, "GET", True, False, False, False),
    ],
)
def test_the_retry_rule(kind: Kind, method: str, reused: bool, answered: bool, written: bool, allowed: bool) -> None:
    failure = ExchangeFailed(kind, "x", answered=answered, written=written)
    assert may_retry(failure, method, reused) is allowed
