"""Exec, port-forward and logs through the server to a kubelet."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from apiserver_wire import Wire, context_of

from konverge.lab.apiserver import ApiServer
from konverge.lab.apiserver.certificates import Authority

PODS = "/api/v1/namespaces/default/pods"


@dataclass
class Kubelet:
    """Answers like a kubelet and remembers what it was asked, and by whom."""

    port: int = 0
    asked: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        assert request.transport is not None
        certificate = request.transport.get_extra_info("peercert")
        self.users.append(next(v for part in certificate["subject"] for k, v in part if k == "commonName"))
        if request.path.startswith("/containerLogs"):
            return web.Response(text="line one\nline two\n")
        if request.path.startswith("/exec/default/p/missing"):
            return web.Response(status=404, text="container not found")
        socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io", "v4.channel.k8s.io"))
        await socket.prepare(request)
        async for message in socket:
            await socket.send_bytes(b"\x01" + message.data[1:].upper())
            break
        await socket.close()
        return socket


@pytest.fixture
async def kubelet(server: ApiServer, wire: Wire) -> AsyncIterator[Kubelet]:
    pair = Authority.load(server.directory).sign_server(["127.0.0.1"])
    certificate, key = server.directory / "kubelet.crt", server.directory / "kubelet.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(server.directory / "ca.crt"))
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    fake = Kubelet()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", fake.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    fake.port = runner.addresses[0][1]
    await register(wire, fake.port)
    yield fake
    await runner.cleanup()


async def register(wire: Wire, port: int) -> None:
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
    }
    code, _ = await wire.send("POST", "/api/v1/nodes", {"metadata": {"name": "n"}, "status": status})
    assert code == 201
    spec = {"nodeName": "n", "containers": [{"name": "c", "image": "x"}, {"name": "missing", "image": "x"}]}
    code, _ = await wire.send("POST", PODS, {"metadata": {"name": "p"}, "spec": spec})
    assert code == 201


async def test_logs_are_passed_on(wire: Wire, kubelet: Kubelet) -> None:
    code, text = await wire.send("GET", f"{PODS}/p/log?container=c&tailLines=2&follow=true")
    assert (code, text) == (200, "line one\nline two\n")
    assert kubelet.asked == ["/containerLogs/default/p/c?follow=true&tailLines=2"]
    assert kubelet.users == ["kube-apiserver-kubelet-client"]


async def test_exec_is_a_tunnel(server: ApiServer, wire: Wire, kubelet: Kubelet) -> None:
    path = f"{PODS}/p/exec?container=c&command=echo&command=a%20b&stdin=true&stdout=true"
    async with wire.session.ws_connect(wire.url + path, protocols=("v5.channel.k8s.io",)) as socket:
        assert socket.protocol == "v5.channel.k8s.io"
        await socket.send_bytes(b"\x00hello")
        message = await socket.receive(10)
        assert message.data == b"\x01HELLO"
        assert (await socket.receive(10)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
    assert kubelet.asked == ["/exec/default/p/c?input=1&output=1&command=echo&command=a+b"]
    assert (await wire.send("GET", "/readyz"))[0] == 200


async def test_port_forward_names_its_ports(wire: Wire, kubelet: Kubelet) -> None:
    path = f"{PODS}/p/portforward?ports=8444&ports=8100"
    async with wire.session.ws_connect(wire.url + path, protocols=("v4.channel.k8s.io",)) as socket:
        await socket.send_bytes(b"\x00x")
        assert (await socket.receive(10)).data == b"\x01X"
    assert kubelet.asked == ["/portForward/default/p?port=8444&port=8100"]


async def test_refusal_of_the_kubelet_reaches_the_client(wire: Wire, kubelet: Kubelet) -> None:
    path = f"{PODS}/p/exec?container=missing&command=ls&stdout=true"
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await wire.session.ws_connect(wire.url + path)
    assert caught.value.status == 404


async def test_kubelet_that_is_down(wire: Wire) -> None:
    await register(wire, 1)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await wire.session.ws_connect(f"{wire.url}{PODS}/p/exec?container=c&command=ls&stdout=true")
    assert caught.value.status == 500
    code, body = await wire.send("GET", f"{PODS}/p/log?container=c")
    assert (code, body["reason"]) == (500, "InternalError")
    assert "connection refused" in body["message"]


async def test_client_that_leaves_ends_the_tunnel(server: ApiServer, wire: Wire, kubelet: Kubelet) -> None:
    path = f"{PODS}/p/portforward?ports=1"
    socket = await wire.session.ws_connect(wire.url + path)
    assert server.metrics.running["CONNECT", "pods"] == 1
    await socket.send_bytes(b"\x00x")
    await socket.receive(10)
    await socket.close()
    assert (await wire.send("GET", "/readyz"))[0] == 200


async def answer_spdy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Upgrade, then send back every byte."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nfirst")
    while chunk := await reader.read(1000):
        writer.write(chunk)
    writer.close()


async def test_spdy_passes_byte_by_byte(server: ApiServer, wire: Wire) -> None:
    pair = Authority.load(server.directory).sign_server(["127.0.0.1"])
    certificate, key = server.directory / "kubelet.crt", server.directory / "kubelet.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    kubelet = await asyncio.start_server(answer_spdy, "127.0.0.1", 0, ssl=context)
    async with kubelet, asyncio.timeout(20):
        await register(wire, kubelet.sockets[0].getsockname()[1])
        port = int(server.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context_of(server))
        head = f"POST {PODS}/p/exec?container=c&command=ls&stdout=true HTTP/1.1\r\nHost: x\r\n"
        writer.write(f"{head}Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(5) == b"first"
        payload = bytes(range(256)) * 400
        writer.write(payload)
        assert await reader.readexactly(len(payload)) == payload
        writer.close()
        await writer.wait_closed()
