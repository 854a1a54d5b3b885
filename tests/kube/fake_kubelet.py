"""A kubelet's TLS endpoint that answers exec, portForward and containerLogs, for callers of the plane's authority."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import WSMsgType, web
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from konverge.lab.realplane.authority import Authority
from konverge.lab.realplane.files import Files

STDIN, STDOUT, ERROR = 0, 1, 3
"""Channels of v4.channel.k8s.io, the first byte of each message."""
SUCCESS = b'{"metadata":{},"status":"Success"}'


@dataclass
class FakeKubelet:
    """What was asked of it, and where it listens."""

    address: str
    port: int = 0
    paths: list[str] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)

    async def answer_logs(self, request: web.Request) -> web.Response:
        """Answer GET /containerLogs/NAMESPACE/POD/CONTAINER."""
        self._record(request)
        return web.Response(text="a line of the log\n")

    async def answer_stream(self, request: web.Request) -> web.WebSocketResponse:
        """Echo stdin to stdout once, then end with success."""
        self._record(request)
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        message = await socket.receive(timeout=20)
        assert message.type is WSMsgType.BINARY
        await socket.send_bytes(bytes([STDOUT]) + b"heard " + message.data[1:])
        await socket.send_bytes(bytes([ERROR]) + SUCCESS)
        await socket.close()
        return socket

    def _record(self, request: web.Request) -> None:
        self.paths.append(request.path_qs)
        transport = request.transport
        assert transport is not None
        peer = x509.load_der_x509_certificate(transport.get_extra_info("ssl_object").getpeercert(True))
        self.callers.append(peer.subject.rfc4514_string())


@asynccontextmanager
async def serve_kubelet(directory: Path, address: str) -> AsyncIterator[FakeKubelet]:
    """Serve a kubelet whose certificate the plane's authority signed, at a free port of ``address``."""
    files = Files(directory)
    Authority(files).issue("kubelet", "system:node:fake", hosts=[address], usages=[ExtendedKeyUsageOID.SERVER_AUTH])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.path("ca.crt")))
    context.load_cert_chain(files.path("kubelet.crt"), files.path("kubelet.key"))
    context.verify_mode = ssl.CERT_REQUIRED
    kubelet = FakeKubelet(address)
    application = web.Application()
    application.router.add_get("/containerLogs/{path:.*}", kubelet.answer_logs)
    application.router.add_get("/exec/{path:.*}", kubelet.answer_stream)
    application.router.add_get("/portForward/{path:.*}", kubelet.answer_stream)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, 0, ssl_context=context)
        await site.start()
        kubelet.port = runner.addresses[0][1]
        yield kubelet
    finally:
        await runner.cleanup()
