"""Commands and ports of pods over WebSockets, against a server that speaks the channel protocols."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession, WSMsgType, web
from kubernetes.aio.client.configuration import Configuration

from konverge.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from konverge.kube import streaming
from konverge.kube.client import KubeClient
from konverge.kube.streaming import PortForward

Handler = Callable[[web.Request, web.WebSocketResponse], Awaitable[None]]
POD = "/api/v1/namespaces/kong/pods/gw-1"
SUCCESS = {"metadata": {}, "status": "Success"}


def failure(code: int) -> dict[str, Any]:
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return {"status": "Failure", "reason": "NonZeroExitCode", "message": "...", "details": {"causes": causes}}


class Cluster:
    """An API server with one pod; ``handler`` plays the kubelet behind a stream."""

    def __init__(self) -> None:
        self.handler: Handler | None = None
        self.refusal = 0
        self.requests: list[web.Request] = []
        self.protocols = ("v5.channel.k8s.io", "v4.channel.k8s.io")
        self.server = ""
        self.open_streams = 0

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if not request.path.startswith(POD):
            return web.json_response({"reason": "NotFound", "message": "pods not found"}, status=404)
        if request.path == POD:
            return web.json_response({"kind": "Pod", "metadata": {"name": "gw-1"}})
        if self.refusal:
            return web.json_response({"message": "no"}, status=self.refusal)
        socket = web.WebSocketResponse(protocols=self.protocols)
        await socket.prepare(request)
        self.open_streams += 1
        assert self.handler is not None
        try:
            await self.handler(request, socket)
        finally:
            self.open_streams -= 1
        await socket.close()
        return socket


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    app = web.Application()
    app.router.add_get("/{path:.*}", cluster.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    cluster.server = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield cluster
    await runner.cleanup()


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[KubeClient]:
    configuration = Configuration(host=cluster.server)
    configuration.api_key = {"BearerToken": "Bearer t0ken"}
    async with KubeClient(configuration) as client:
        yield client


async def run(client: KubeClient, *command: str, **options: Any) -> streaming.ExecResult:
    return await streaming.exec(client, "gw-1", "kong", "proxy", command or ("kong", "reload"), **options)


def play(*messages: tuple[int, bytes], status: dict[str, Any] | None = None) -> Handler:
    async def handle(request: web.Request, socket: web.WebSocketResponse) -> None:
        for channel in (0, 1, 2):
            await socket.send_bytes(bytes([channel]))
        for channel, data in messages:
            await socket.send_bytes(bytes([channel]) + data)
        if status is not None:
            await socket.send_bytes(b"\x03" + json.dumps(status).encode())

    return handle


async def test_exec_collects_outputs_and_code(cluster: Cluster, client: KubeClient) -> None:
    cluster.handler = play((1, b"Kong "), (2, b"warn"), (1, b"reloaded\n"), status=SUCCESS)
    result = await run(client, "sh", "-c", "kong reload && echo 'a b'")
    assert (result.code, result.stdout, result.stderr, result.truncated) == (0, b"Kong reloaded\n", b"warn", False)
    request = cluster.requests[-1]
    assert request.path == f"{POD}/exec"
    assert request.query.getall("command") == ["sh", "-c", "kong reload && echo 'a b'"]
    assert (request.query["container"], request.query["stdout"], request.query["stderr"]) == ("proxy", "true", "true")
    assert "stdin" not in request.query
    assert request.headers["Authorization"] == "Bearer t0ken"
    assert "reloaded" not in repr(result)


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
async def test_exec_speaks_both_protocols(cluster: Cluster, client: KubeClient, protocol: str) -> None:
    cluster.protocols = (protocol,)
    cluster.handler = play((255, b"\x00"), (1, b"out"), status=failure(137))
    result = await run(client)
    assert (result.code, result.stdout) == (137, b"out")


async def test_exec_bounds_outputs_and_reads_on(cluster: Cluster, client: KubeClient) -> None:
    cluster.handler = play((1, b"x" * 700), (1, b"y" * 700), (2, b"z" * 10), status=failure(1))
    result = await run(client, limit=1000)
    assert (len(result.stdout), result.stderr, result.truncated, result.code) == (1000, b"z" * 10, True, 1)


async def test_exec_that_could_not_start(cluster: Cluster, client: KubeClient) -> None:
    cluster.handler = play(status={"status": "Failure", "message": "executable file not found in $PATH"})
    with pytest.raises(Invalid, match="executable file not found") as caught:
        await run(client)
    assert caught.value.reason == "ExecFailed"


async def test_exec_stream_that_breaks_off(cluster: Cluster, client: KubeClient) -> None:
    async def drop(request: web.Request, socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(b"\x01half")
        assert request.transport is not None
        request.transport.abort()

    for handler in (play((1, b"half")), drop):
        cluster.handler = handler
        with pytest.raises(Unavailable) as caught:
            await run(client)
        assert caught.value.reason == "ExecLost"


async def test_exec_is_bounded_in_time_and_cancellable(cluster: Cluster, client: KubeClient) -> None:
    started = asyncio.Event()

    async def hang(request: web.Request, socket: web.WebSocketResponse) -> None:
        started.set()
        await socket.receive()

    cluster.handler = hang
    with pytest.raises(Unavailable, match=r"0\.1 s") as caught:
        await run(client, timeout=0.1)
    assert caught.value.reason == "ExecTimedOut"
    started.clear()
    task = asyncio.create_task(run(client))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("status", "error"), [(403, Forbidden), (404, NotFound), (400, Conflict), (500, Unavailable)]
)
async def test_refused_streams(cluster: Cluster, client: KubeClient, status: int, error: type[Exception]) -> None:
    cluster.refusal = status
    with pytest.raises(error, match="kong/gw-1/proxy"):
        await run(client)


async def test_api_server_gone() -> None:
    async with KubeClient(Configuration(host="http://127.0.0.1:1")) as client:
        with pytest.raises(Unavailable) as caught:
            await run(client)
    assert caught.value.reason == "ApiUnreachable"


def forwarding(serve: Handler, port: int = 8444) -> Handler:
    async def handle(request: web.Request, socket: web.WebSocketResponse) -> None:
        assert request.query["ports"] == str(port)
        for channel in (0, 1):
            await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
        await serve(request, socket)

    return handle


async def echo(request: web.Request, socket: web.WebSocketResponse) -> None:
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            assert message.data[:1] == b"\x00"
            await socket.send_bytes(b"\x00" + message.data[1:].upper())


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """Read until the other side ends the connection, be it with FIN or RST."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_each_connection_has_its_own_stream(cluster: Cluster, client: KubeClient) -> None:
    cluster.handler = forwarding(echo)
    async with PortForward(client, "gw-1", "kong", 8444) as forward:
        pairs = [await asyncio.open_connection("127.0.0.1", forward.port) for _ in range(3)]
        for number, (_, writer) in enumerate(pairs):
            writer.write(f"hello-{number}".encode())
        for number, (reader, _) in enumerate(pairs):
            assert await reader.readexactly(7) == f"HELLO-{number}".encode()
        assert cluster.open_streams == 3
        for _, writer in pairs:
            writer.close()
            await writer.wait_closed()
    assert forward.error is None


async def test_megabytes_both_ways_arrive_in_order(cluster: Cluster, client: KubeClient) -> None:
    cluster.handler = forwarding(echo)
    sent = bytes(range(97, 123)) * 40_000
    async with PortForward(client, "gw-1", "kong", 8444) as forward:
        reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
        writer.write(sent)
        assert await reader.readexactly(len(sent)) == sent.upper()
        writer.close()
        await writer.wait_closed()


async def test_http_through_the_forward(cluster: Cluster, client: KubeClient) -> None:
    async def respond(request: web.Request, socket: web.WebSocketResponse) -> None:
        await socket.receive()
        await socket.send_bytes(b"\x00HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await socket.receive()

    cluster.handler = forwarding(respond)
    async with (
        PortForward(client, "gw-1", "kong", 8444) as forward,
        ClientSession() as session,
        session.get(forward.url + "/status") as response,
    ):
        assert await response.json(content_type=None) == {}


async def test_end_of_the_pods_side_ends_the_connection(cluster: Cluster, client: KubeClient) -> None:
    async def farewell(request: web.Request, socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(b"\x00bye")

    cluster.handler = forwarding(farewell)
    async with PortForward(client, "gw-1", "kong", 8444) as forward:
        reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
        assert await reader.read() == b"bye"
        writer.close()
        await writer.wait_closed()


async def test_half_closed_client_still_gets_its_answer(cluster: Cluster, client: KubeClient) -> None:
    async def answer_late(request: web.Request, socket: web.WebSocketResponse) -> None:
        message = await socket.receive()
        await socket.send_bytes(b"\x00" + message.data[1:] + b" got")
        await socket.receive()

    cluster.handler = forwarding(answer_late)
    async with PortForward(client, "gw-1", "kong", 8444, linger=0.2) as forward:
        reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
        writer.write(b"all")
        writer.write_eof()
        assert await reader.read() == b"all got"
        writer.close()
        await writer.wait_closed()


async def test_error_of_the_kubelet_is_kept(cluster: Cluster, client: KubeClient) -> None:
    async def refuse(request: web.Request, socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(b"\x01dial tcp4 127.0.0.1:8444: connect: connection refused")
        await socket.receive()

    cluster.handler = forwarding(refuse)
    async with PortForward(client, "gw-1", "kong", 8444) as forward:
        reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
        assert await read_to_end(reader) == b""
        writer.close()
    assert forward.error is not None
    assert forward.error.reason == "PortForwardRefused"
    assert "connection refused" in forward.error.message


async def test_missing_pod_and_missing_rights(cluster: Cluster, client: KubeClient) -> None:
    with pytest.raises(NotFound):
        async with PortForward(client, "gw-2", "kong", 8444):
            pass
    cluster.refusal = 403
    async with PortForward(client, "gw-1", "kong", 8444) as forward:
        reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
        assert await read_to_end(reader) == b""
        writer.close()
    assert isinstance(forward.error, Forbidden)


async def test_leaving_ends_open_connections_at_once(cluster: Cluster, client: KubeClient) -> None:
    cluster.handler = forwarding(echo)
    async with PortForward(client, "gw-1", "kong", 8444) as forward:
        reader, writer = await asyncio.open_connection("127.0.0.1", forward.port)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"X"
        port = forward.port
    assert await read_to_end(reader) == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
