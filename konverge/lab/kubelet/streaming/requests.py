"""The kubelet's exec, attach and portForward endpoints in every protocol that clients use."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import WSMsgType, web

from konverge.lab.kubelet.spdy.frames import SpdyError
from konverge.lab.kubelet.spdy.session import Session
from konverge.lab.kubelet.spdy.streams import SpdyStream
from konverge.lab.kubelet.streaming.channels import (
    EXEC_PROTOCOLS,
    FORWARD_PROTOCOLS,
    TUNNEL_PROTOCOL,
    ChannelConnection,
)
from konverge.lab.kubelet.streaming.forwarding import forward
from konverge.lab.kubelet.streaming.pipes import STREAM_TYPES, ExecOptions, ExecPipes
from konverge.lab.kubelet.streaming.upgrading import Serve, take_over

STREAMS_TIMEOUT = 30.0
"""Seconds for a SPDY client to open the streams it announced (``DefaultStreamCreationTimeout``)."""
SPDY_EXEC_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
SPDY_FORWARD_PROTOCOL = "portforward.k8s.io"
RunExec = Callable[[ExecPipes], Awaitable[None]]


def exec_options(query: Any) -> ExecOptions:
    """Read what the client asks for; the kubelet's names and the API server's are both understood."""

    def flag(*names: str) -> bool:
        return any(query.get(name) in ("1", "true", "True") for name in names)

    return ExecOptions(
        command=tuple(query.getall("command", [])),
        stdin=flag("input", "stdin"),
        stdout=flag("output", "stdout"),
        stderr=flag("error", "stderr"),
        tty=flag("tty"),
    )


def wants_websocket(request: web.Request) -> bool:
    """Return whether the request asks for a WebSocket."""
    return "websocket" in request.headers.get("Upgrade", "").lower()


def _negotiate(request: web.Request, supported: tuple[str, ...]) -> str:
    """Return the stream protocol for a SPDY upgrade; 400 and 403 as the kubelet answers them."""
    if "spdy/3.1" not in request.headers.get("Upgrade", "").lower():
        raise web.HTTPBadRequest(text="you must specify at least 1 of stdin, stdout, stderr over an upgrade\n")
    offered = [
        item.strip() for value in request.headers.getall("X-Stream-Protocol-Version", []) for item in value.split(",")
    ]
    if not offered:
        return supported[-1]
    chosen = next((item for item in offered if item in supported), "")
    if not chosen:
        accepted = {"X-Accepted-Stream-Protocol-Versions": ", ".join(supported)}
        raise web.HTTPForbidden(
            text=f"unable to upgrade: unable to negotiate protocol: {offered}\n", headers=accepted
        )
    return chosen


@contextlib.asynccontextmanager
async def _pumping(connection: ChannelConnection) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(connection.pump())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def serve_exec(request: web.Request, options: ExecOptions, run: RunExec) -> web.StreamResponse:
    """Carry the streams of an exec or attach over what the client speaks, and run ``run`` on them."""
    if not (options.stdin or options.stdout or options.stderr):
        raise web.HTTPBadRequest(text="you must specify at least 1 of stdin, stdout, stderr\n")
    if not wants_websocket(request):
        protocol = _negotiate(request, SPDY_EXEC_PROTOCOLS)

        async def serve(session: Session) -> None:
            pipes = await _collect(session, options, protocol)
            if pipes is not None:
                await run(pipes)

        return await take_over(request, protocol, serve)
    socket = web.WebSocketResponse(protocols=EXEC_PROTOCOLS, compress=False, max_msg_size=0)
    await socket.prepare(request)
    await _run_over_websocket(socket, options, run)
    return socket


async def _run_over_websocket(socket: web.WebSocketResponse, options: ExecOptions, run: RunExec) -> None:
    numbers = options.streams()
    connection = ChannelConnection(socket, numbers)
    found = {STREAM_TYPES[number]: connection.channel(number) for number in numbers}
    async with _pumping(connection):
        # An empty message tells the client that the streams are there.
        first = next((number for number in (1, 2, 3) if number in numbers), 3)
        await connection.send(first, b"")
        structured = (socket.ws_protocol or "").startswith(("v4", "v5"))
        await run(ExecPipes(**found, structured=structured))
    await socket.close()


async def _collect(session: Session, options: ExecOptions, protocol: str) -> ExecPipes | None:
    """Wait for the streams that the client opens; None where it leaves before."""
    wanted = {STREAM_TYPES[number] for number in options.streams()}
    if not protocol.startswith(("v3", "v4")):
        wanted.discard("resize")
    found: dict[str, SpdyStream] = {}
    try:
        async with asyncio.timeout(STREAMS_TIMEOUT):
            while wanted - found.keys():
                stream = await session.accept()
                if stream is None:
                    return None
                found[stream.headers.get("streamtype", "")] = stream
    except TimeoutError:
        return None
    chosen = {name: stream for name, stream in found.items() if name in STREAM_TYPES}
    return ExecPipes(**chosen, structured=protocol.startswith("v4"))


async def serve_forward(request: web.Request, hosts: tuple[str, ...], pod: str) -> web.StreamResponse:
    """Forward ports over WebSocket channels, SPDY in a WebSocket, or SPDY."""

    async def serve(session: Session) -> None:
        await _forward_session(session, hosts, pod)

    if not wants_websocket(request):
        return await take_over(request, _negotiate(request, (SPDY_FORWARD_PROTOCOL,)), serve)
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    protocols = (TUNNEL_PROTOCOL, *FORWARD_PROTOCOLS)
    ports = _ports(request) if TUNNEL_PROTOCOL not in offered else []
    socket = web.WebSocketResponse(protocols=protocols, compress=False, max_msg_size=0)
    await socket.prepare(request)
    if socket.ws_protocol == TUNNEL_PROTOCOL:
        await _tunnel(socket, serve)
    else:
        await _forward_channels(socket, ports, hosts, pod)
    return socket


def _ports(request: web.Request) -> list[int]:
    values = [*request.query.getall("ports", []), *request.query.getall("port", [])]
    texts = [part for value in values for part in value.split(",")]
    ports = [int(text) for text in texts if text.isdigit() and 0 < int(text) < 65536]
    if not ports or len(ports) != len(texts):
        raise web.HTTPBadRequest(text='query parameter "port" is required, each between 1 and 65535\n')
    return ports


async def _forward_channels(
    socket: web.WebSocketResponse, ports: list[int], hosts: tuple[str, ...], pod: str
) -> None:
    """Serve pairs of channels: data on the even ones, errors on the odd ones, both led by the port number."""
    connection = ChannelConnection(socket, range(2 * len(ports)))
    async with _pumping(connection) as pump:
        for index, port in enumerate(ports):
            for number in (2 * index, 2 * index + 1):
                await connection.send(number, port.to_bytes(2, "little"))
        work = [
            asyncio.create_task(
                forward(hosts, port, pod, connection.channel(2 * index), connection.channel(2 * index + 1))
            )
            for index, port in enumerate(ports)
        ]
        try:
            every = asyncio.ensure_future(asyncio.wait(work))
            await asyncio.wait({every, pump}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            every.cancel()
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
    await socket.close()


async def _tunnel(socket: web.WebSocketResponse, serve: Serve) -> None:
    session = Session(socket.send_bytes)
    serving = asyncio.create_task(serve(session))
    try:
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                session.feed(message.data)
                await session.readable.wait()
    except SpdyError:
        pass
    finally:
        session.feed_eof()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    await socket.close()


async def _forward_session(session: Session, hosts: tuple[str, ...], pod: str) -> None:
    """Serve pairs of streams (error and data with one requestID each) until the client leaves."""
    waiting: dict[str, dict[str, SpdyStream]] = {}
    work: set[asyncio.Task[None]] = set()
    try:
        while (stream := await session.accept()) is not None:
            number = stream.headers.get("requestid", stream.headers.get("port", ""))
            pair = waiting.setdefault(number, {})
            pair[stream.headers.get("streamtype", "")] = stream
            port = stream.headers.get("port", "")
            if len(pair) == 2 and port.isdigit():
                waiting.pop(number)
                task = asyncio.create_task(forward(hosts, int(port), pod, pair["data"], pair["error"]))
                work.add(task)
                task.add_done_callback(work.discard)
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
