from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from scripted_server import Peer, Script, serve

from konverge.lab.load import LoadGenerator, LoadPlan, LoadReport, TrafficClass, streams, websockets

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def line(number: int, end: bool = False) -> bytes:
    return chunk(b'{"seq":%d%s}\n' % (number, b',"end":true' if end else b""))


async def run_sessions(url: str, kind: str, done: Callable[[Any], bool], seconds: float = 0.3) -> LoadReport:
    item = TrafficClass.model_validate(
        {
            "name": kind,
            "kind": kind,
            "sessions": 1,
            "seconds": seconds,
            "interval": 0.02,
            "targets": [{"name": kind, "path": "/s"}],
        }
    )
    plan = LoadPlan(base_url=url, rate=0, classes=[item], timeout=1.0, connect_timeout=1.0)
    async with LoadGenerator(plan) as load:
        await load.wait_until(done, 10)
        return await load.stop()


def one_ended(snapshot: Any) -> bool:
    return bool(snapshot.requests.total >= 1)


async def stream_whole(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(HEAD + line(0) + line(1) + line(2, end=True) + b"0\r\n\r\n")


async def stream_early_end(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(HEAD + line(0) + b"0\r\n\r\n")


async def stream_cut(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(HEAD + line(0))


async def stream_reset(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(HEAD + line(0))
    await asyncio.sleep(0.02)
    peer.reset()


async def stream_gap(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(HEAD + line(0) + line(2) + line(3, end=True) + b"0\r\n\r\n")


async def stream_unavailable(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(b"HTTP/1.1 503 x\r\nContent-Length: 4\r\n\r\nbusy")


async def stream_still(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(HEAD + line(0))
    await peer.reader.read()


@pytest.mark.parametrize(
    ("script", "ending", "kind"),
    [
        (stream_whole, "ok", ""),
        (stream_early_end, "closed_gracefully", ""),
        (stream_cut, "failed", "stream_cut"),
        (stream_reset, "failed", "stream_cut"),
        (stream_gap, "failed", "wrong_body"),
        (stream_unavailable, "failed", "bad_status_503"),
        (stream_still, "failed", "timeout"),
    ],
)
async def test_a_stream_is_counted_by_how_it_ended(
    script: Script, ending: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SILENCE", 0.1)
    async with serve(script) as server:
        report = await run_sessions(server.url, "stream", one_ended)
    assert getattr(report.requests, ending) >= 1
    assert set(report.requests.by_kind) == ({kind} if kind else set())
    assert report.lines.sessions_cut == (report.requests.by_kind.get("stream_cut", 0))


async def test_a_stream_that_the_client_leaves_is_a_success() -> None:
    async with serve(stream_still) as server:
        report = await run_sessions(server.url, "stream", lambda snapshot: snapshot.sessions_open == 1, seconds=60)
        # The first line was read before the run ended.
        assert (report.requests.total, report.requests.ok) in ((0, 0), (1, 1))


@contextlib.asynccontextmanager
async def websocket_server(talk: Callable[[web.WebSocketResponse], Any]) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await talk(socket)
        return socket

    app = web.Application()
    app.router.add_get("/s", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def talk_on(socket: web.WebSocketResponse) -> None:
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)


async def leave_after_three(socket: web.WebSocketResponse) -> None:
    for _ in range(3):
        await socket.send_str((await socket.receive()).data)
    await socket.receive()
    await socket.close(code=1001)


async def fail_after_three(socket: web.WebSocketResponse) -> None:
    for _ in range(3):
        await socket.send_str((await socket.receive()).data)
    await socket.close(code=1011)


async def vanish_after_three(socket: web.WebSocketResponse) -> None:
    for _ in range(3):
        await socket.send_str((await socket.receive()).data)
    assert socket._req is not None
    assert socket._req.transport is not None
    socket._req.transport.close()


async def mishear(socket: web.WebSocketResponse) -> None:
    await socket.receive()
    await socket.send_str("something else")
    await socket.receive()


async def ignore(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass


async def test_a_websocket_that_lasts_is_a_success_and_all_messages_come_back() -> None:
    async with websocket_server(talk_on) as url:
        report = await run_sessions(url, "websocket", lambda snapshot: snapshot.requests.ok >= 2, seconds=0.1)
    assert report.clean
    assert report.requests.closed_gracefully == 0
    assert report.messages.echoed == report.messages.sent >= 10
    assert report.messages.p50_ms > 0
    assert (report.messages.lost, report.messages.sessions_broken) == (0, 0)


async def test_a_going_away_is_graceful_and_the_message_under_way_is_lost() -> None:
    async with websocket_server(leave_after_three) as url:
        report = await run_sessions(url, "websocket", lambda snapshot: snapshot.requests.closed_gracefully >= 1)
    assert report.clean
    assert report.messages.lost == report.requests.closed_gracefully
    assert report.messages.sessions_broken == 0


@pytest.mark.parametrize(
    ("talk", "kind"),
    [
        (fail_after_three, "websocket_closed"),
        (vanish_after_three, "websocket_closed"),
        (mishear, "wrong_body"),
        (ignore, "websocket_closed"),
    ],
)
async def test_any_other_end_breaks_the_session(
    talk: Callable[[web.WebSocketResponse], Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websockets, "SILENCE", 0.05)
    async with websocket_server(talk) as url:
        report = await run_sessions(url, "websocket", lambda snapshot: snapshot.requests.failed >= 1)
    assert set(report.requests.by_kind) == {kind}
    assert report.messages.sessions_broken == report.requests.failed


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", "bad_status_503"),
        (b"", "eof_before_response"),
    ],
)
async def test_a_handshake_that_fails_has_its_kind(answer: bytes, kind: str) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.read_request()
        await peer.write(answer)

    async with serve(refuse) as server:
        report = await run_sessions(server.url, "websocket", one_ended)
    assert set(report.requests.by_kind) == {kind}


async def test_a_websocket_to_a_closed_port_is_refused() -> None:
    async with serve(stream_whole) as server:
        url = server.url
    report = await run_sessions(url, "websocket", one_ended)
    assert set(report.requests.by_kind) == {"connect_refused"}
