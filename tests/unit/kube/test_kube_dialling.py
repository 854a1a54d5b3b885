"""Connections to the API server probe a silent peer: a watch over a partition ends in seconds, not minutes."""

from __future__ import annotations

import socket

import pytest
from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from konverge.kube import dialling
from konverge.kube.client import KubeClient


async def test_every_connection_of_the_client_has_keepalive(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, int]] = []
    opening = dialling.open_socket

    def note(address: object) -> socket.socket:
        opened = opening(address)  # type: ignore[arg-type]
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        seen.append(tuple(opened.getsockopt(socket.IPPROTO_TCP, option) for option in options))  # type: ignore[arg-type]
        return opened

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({})

    monkeypatch.setattr(dialling, "open_socket", note)
    app = web.Application()
    app.router.add_get("/readyz", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with KubeClient(configuration) as client:
            await client.request("GET", "/readyz")
            await client.request("GET", "/readyz")
    finally:
        await runner.cleanup()
    assert seen == [(15, 5, 3)]
