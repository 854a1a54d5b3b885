"""Bare gateways in one process, for measuring the controller and nothing else: they hash, and answer the marker.

Each has an address of its own with the ports of a Kong: 8444 over mutual TLS (``/``, ``/status``, ``/config``), 8000
(the marker of what was posted last). A configuration is searched for its marker, not parsed; ``--load`` seconds pass
between the last byte and the answer, as in a Kong that loads.

Usage: ``python -m changing.serving DIRECTORY LOAD ADDRESS...``; DIRECTORY holds the files of a proxy's identity.
Prints a line when all listen; ends with its parent.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import ssl
import sys
from pathlib import Path

from aiohttp import web

from konverge.kong.marker import TAG
from konverge.lab.pod import die_with_parent
from konverge.model.proxy import ADMIN_PORT, PROXY_PORT, ZERO_HASH

MARKER = re.compile(rb'"body":"([0-9a-f]{32})","content_type":"text/plain"')
INFO = {"version": "3.9.1", "node_id": "0", "configuration": {"database": "off", "router_flavor": "traditional"}}


class Gateway:
    """What one gateway has loaded."""

    def __init__(self, load: float) -> None:
        self.load = load
        self.hash, self.marker = ZERO_HASH, b""

    async def answer(self, request: web.Request) -> web.Response:
        """Answer the Admin API."""
        if request.method == "POST":
            content = b"".join([chunk async for chunk in request.content.iter_any()])
            await asyncio.sleep(self.load)
            self.hash = hashlib.md5(content).hexdigest()
            place = content.find(TAG.encode())
            found = MARKER.search(content, max(0, place - 4096))
            self.marker = found.group(1) if found else b""
            return web.json_response({}, status=201)
        if request.path == "/status":
            return web.json_response({"configuration_hash": self.hash, "server": {}})
        return web.json_response(INFO)

    async def route(self, _request: web.Request) -> web.Response:
        """Answer the data path."""
        return web.Response(body=self.marker, status=200 if self.marker else 404)


async def serve(directory: Path, load: float, addresses: list[str]) -> None:
    """Serve for ever."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(directory / "client-ca.pem")
    for address in addresses:
        gateway = Gateway(load)
        for port, handler, secure in ((ADMIN_PORT, gateway.answer, context), (PROXY_PORT, gateway.route, None)):
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", handler)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, address, port, ssl_context=secure).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    die_with_parent(os.getppid())
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
