from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest
from kubelet_clients import SpdyClient, client_context
from kubelet_fakes import FakeClient, pod, shell

from konverge.kube.resources import PODS
from konverge.lab.kubelet.agent import Kubelet
from konverge.lab.kubelet.settings import KubeletSettings
from konverge.lab.kubelet.spdy.session import Session
from konverge.lab.kubelet.spdy.streams import SpdyStream

SERVER = """
import os, socket, threading
server = socket.create_server((os.environ["KONVERGE_LAB_POD_LOOPBACK"], 8080))
print("listening", flush=True)
while True:
    connection, _ = server.accept()
    def answer(connection=connection):
        data = b""
        while block := connection.recv(65536):
            data += block
        connection.sendall(data[::-1])
        connection.close()
    threading.Thread(target=answer, daemon=True).start()
"""


@pytest.fixture
async def context(kubelet: Kubelet, settings: KubeletSettings) -> ssl.SSLContext:
    return client_context(settings.directory)


@pytest.fixture
async def base(kubelet: Kubelet, client: FakeClient) -> str:
    """The kubelet's URL, with the pod ``a`` running."""
    container = {"name": "main", "image": "lab/host", "command": ["python", "-c", SERVER]}
    client.put(PODS, pod("a", container))
    await client.until(lambda: client.condition("a", "Ready").get("status") == "True")
    worker = next(iter(kubelet.workers.values()))
    log = worker.containers[0].log
    assert log is not None
    async with asyncio.timeout(10):
        while b"listening" not in log.path.read_bytes():
            await log.grow()
    return f"https://127.0.0.1:{kubelet.port}"


@pytest.fixture
async def http(context: ssl.SSLContext) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield session


async def collect(socket: aiohttp.ClientWebSocketResponse, *, encoded: bool = False) -> dict[int, bytes]:
    channels: dict[int, bytes] = {}
    async with asyncio.timeout(10):
        async for message in socket:
            if encoded:
                number, data = int(message.data[0]), base64.b64decode(message.data[1:])
            else:
                number, data = message.data[0], message.data[1:]
            channels[number] = channels.get(number, b"") + data
    return channels


async def run_websocket(
    http: aiohttp.ClientSession, base: str, command: list[str], protocol: str, stdin: bytes | None = None, **more: str
) -> dict[int, bytes]:
    query = [("command", word) for word in command] + [("output", "1"), ("error", "1"), *more.items()]
    query += [("input", "1")] if stdin is not None else []
    url = f"{base}/exec/default/a/main"
    async with http.ws_connect(url, params=query, protocols=(protocol,)) as socket:
        assert socket.protocol == protocol
        if stdin is not None:
            await socket.send_bytes(b"\x00" + stdin)
            await socket.send_bytes(b"\xff\x00")
        return await collect(socket, encoded="base64" in protocol)


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v5.channel.k8s.io", "v4.base64.channel.k8s.io"])
async def test_exec_over_websocket(http: aiohttp.ClientSession, base: str, protocol: str) -> None:
    got = await run_websocket(http, base, ["sh", "-c", "echo out; echo err >&2; exit 3"], protocol)
    assert (got[1], got[2]) == (b"out\n", b"err\n")
    status = json.loads(got[3])
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_exec_without_version_tells_failures_as_text(http: aiohttp.ClientSession, base: str) -> None:
    got = await run_websocket(http, base, ["sh", "-c", "exit 3"], "channel.k8s.io")
    assert got[3] == b"command terminated with exit code 3"


async def test_stdin_ends_by_the_close_signal_of_v5(http: aiohttp.ClientSession, base: str) -> None:
    got = await run_websocket(http, base, ["cat"], "v5.channel.k8s.io", stdin=b"x" * 100_000)
    assert got[1] == b"x" * 100_000
    assert json.loads(got[3])["status"] == "Success"


async def test_a_terminal_takes_input_signals_and_a_size(http: aiohttp.ClientSession, base: str) -> None:
    query = {"command": "sh", "input": "1", "output": "1", "tty": "1"}
    async with (
        asyncio.timeout(10),
        http.ws_connect(f"{base}/exec/default/a/main", params=query, protocols=("v5.channel.k8s.io",)) as socket,
    ):
        await socket.send_bytes(b"\x04" + json.dumps({"Width": 91, "Height": 33}).encode())
        await socket.send_bytes(b"\x00stty size; sh -c 'echo re\"\"ady; exec sleep 100'\n")
        seen = b""
        while b"ready" not in seen:
            seen += (await socket.receive_bytes())[1:]
        assert b"33 91" in seen
        await socket.send_bytes(b"\x00\x03")  # Ctrl-C ends the sleep, not the shell
        await socket.send_bytes(b"\x00echo al''ive; exit 5\n")
        got = await collect(socket)
    assert b"alive" in got[1]
    assert b'"5"' in got[3]


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/exec/default/a/main?command=true&output=1", 400, "upgrade"),
        ("/exec/default/a/main?command=true", 400, "at least 1 of stdin, stdout, stderr"),
        ("/exec/default/a/main?output=1", 400, "at least 1 command"),
        ("/exec/default/nope/main?command=true&output=1", 404, "default/nope is not on this node"),
        ("/exec/default/a/nope?command=true&output=1", 404, "container nope not found"),
        ("/containerLogs/default/a/main?tailLines=x", 422, "invalid literal"),
        ("/containerLogs/default/a/main?previous=true", 400, "previous terminated container"),
    ],
)
async def test_requests_that_make_no_sense(
    http: aiohttp.ClientSession, base: str, path: str, status: int, message: str
) -> None:
    async with http.get(base + path) as response:
        assert response.status == status
        assert message in await response.text()


async def test_a_client_without_certificate_is_turned_away(base: str) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await session.get(base + "/healthz")


async def test_the_plain_endpoints(http: aiohttp.ClientSession, base: str) -> None:
    async with http.get(base + "/healthz") as response:
        assert await response.text() == "ok"
    async with http.get(base + "/pods") as response:
        assert [item["metadata"]["name"] for item in (await response.json())["items"]] == ["a"]
    async with http.get(base + "/stats/summary") as response:
        (stats,) = (await response.json())["pods"]
        assert stats["containers"][0]["memory"]["rssBytes"] > 1_000_000
    async with http.get(base + "/containerLogs/default/a/main?timestamps=true") as response:
        assert (await response.text()).endswith("Z listening\n")


# SPDY


async def read_all(stream: SpdyStream) -> bytes:
    data = b""
    async with asyncio.timeout(10):
        while block := await stream.read():
            data += block
    return data


async def test_exec_over_spdy(kubelet: Kubelet, base: str, context: ssl.SSLContext) -> None:
    path = "/exec/default/a/main?command=sh&command=-c&command=wc%20-c%3B%20exit%202&input=1&output=1&error=1"
    protocols = "v5.channel.k8s.io, v4.channel.k8s.io, v3.channel.k8s.io"
    async with SpdyClient.connect(kubelet.port, context, path, protocols) as spdy:
        assert spdy.protocol == "v4.channel.k8s.io"
        error, stdin, stdout, stderr = [
            await spdy.session.open({"streamType": kind}) for kind in ("error", "stdin", "stdout", "stderr")
        ]
        await stdin.write(bytes(500_000))
        await stdin.finish()
        assert (await read_all(stdout)).strip() == b"500000"
        assert await read_all(stderr) == b""
        assert json.loads(await read_all(error))["details"]["causes"][0]["message"] == "2"


async def test_a_spdy_client_with_unknown_protocols_is_refused(
    kubelet: Kubelet, base: str, context: ssl.SSLContext
) -> None:
    path = "/exec/default/a/main?command=true&output=1"
    with pytest.raises(ConnectionError, match="403 Forbidden"):
        async with SpdyClient.connect(kubelet.port, context, path, "v9.channel.k8s.io"):
            pass


async def forward_once(session: Session, port: int, number: int, payload: bytes) -> tuple[bytes, bytes]:
    headers = {"port": str(port), "requestID": str(number)}
    error = await session.open({**headers, "streamType": "error"})
    await error.finish()
    data = await session.open({**headers, "streamType": "data"})
    try:
        await data.write(payload)
        await data.finish()
    except ConnectionResetError:
        pass
    return await read_all(data), await read_all(error)


async def test_port_forward_over_spdy(kubelet: Kubelet, base: str, context: ssl.SSLContext) -> None:
    async with SpdyClient.connect(kubelet.port, context, "/portForward/default/a", "portforward.k8s.io") as spdy:
        payloads = [bytes([number]) * 200_000 + b"end" for number in range(5)]
        answers = await asyncio.gather(
            *(forward_once(spdy.session, 8080, number, payload) for number, payload in enumerate(payloads))
        )
        assert answers == [(payload[::-1], b"") for payload in payloads]
        _, error = await forward_once(spdy.session, 9, 9, b"x")
        assert b"failed to connect to localhost:9 inside it: connect: connection refused" in error


async def test_port_forward_over_spdy_inside_a_websocket(http: aiohttp.ClientSession, base: str) -> None:
    protocol = "SPDY/3.1+portforward.k8s.io"
    async with http.ws_connect(f"{base}/portForward/default/a", protocols=(protocol,)) as socket:
        assert socket.protocol == protocol
        session = Session(socket.send_bytes, client=True)

        async def pump() -> None:
            async for message in socket:
                session.feed(message.data)
            session.feed_eof()

        pumping = asyncio.create_task(pump())
        assert await forward_once(session, 8080, 1, b"abc") == (b"cba", b"")
        await session.close()
        await socket.close()
        await pumping


async def test_port_forward_over_websocket_channels(http: aiohttp.ClientSession, base: str, kubelet: Kubelet) -> None:
    url = f"{base}/portForward/default/a?port=8080,9"
    async with http.ws_connect(url, protocols=("v4.channel.k8s.io",)) as socket, asyncio.timeout(10):
        heads = [await socket.receive_bytes() for _ in range(4)]
        assert heads == [b"\x00\x90\x1f", b"\x01\x90\x1f", b"\x02\x09\x00", b"\x03\x09\x00"]
        refused = await socket.receive_bytes()
        assert refused[0] == 3
        assert b"connection refused" in refused
        await socket.send_bytes(b"\x00question")
    async with http.get(f"{base}/portForward/default/a?ports=0", headers=upgrade()) as response:
        assert response.status == 400


def upgrade() -> dict[str, str]:
    return {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Protocol": "v4.channel.k8s.io"}


async def test_attach_shows_what_comes(http: aiohttp.ClientSession, client: FakeClient, base: str) -> None:
    client.put(PODS, pod("b", shell("while :; do echo tick; sleep 0.05; done")))
    await client.until(lambda: client.condition("b", "Ready").get("status") == "True")
    url = f"{base}/attach/default/b/main?output=1&error=1"
    async with http.ws_connect(url, protocols=("v4.channel.k8s.io",)) as socket, asyncio.timeout(10):
        seen = b""
        while seen.count(b"tick") < 2:
            message = await socket.receive_bytes()
            seen += message[1:]


async def test_exec_ends_with_its_container(
    http: aiohttp.ClientSession, client: FakeClient, base: str, kubelet: Kubelet
) -> None:
    url = f"{base}/exec/default/a/main?command=sleep&command=600&output=1"
    async with http.ws_connect(url, protocols=("v4.channel.k8s.io",)) as socket:
        assert await socket.receive_bytes() == b"\x01"
        client.delete_pod("a", 1)
        got = await collect(socket)
    assert json.loads(got[3])["details"]["causes"][0]["message"] == "137"
    await client.until(lambda: client.pod("a") is None)


async def test_logs_are_followed_across_the_wire(http: aiohttp.ClientSession, client: FakeClient, base: str) -> None:
    client.put(PODS, pod("b", shell("echo one; sleep 0.1; echo two; exec sleep 600")))
    await client.until(lambda: client.condition("b", "Ready").get("status") == "True")
    async with http.get(f"{base}/containerLogs/default/b/main?follow=true") as response, asyncio.timeout(10):
        assert await response.content.readline() == b"one\n"
        assert await response.content.readline() == b"two\n"
        client.delete_pod("b", 1)
        assert await response.content.read() == b""
