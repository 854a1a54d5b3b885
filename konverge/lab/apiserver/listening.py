"""The listening socket: TLS, and the fault in which nobody can connect."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from konverge.lab.apiserver.state import MAX_BODY

KEEP_ALIVE = 180.0
SHUTDOWN_SECONDS = 2.0
BACKLOG = 1024


class Listener:
    """Accepts connections for a handler on one address, which stays the same when it is closed for a while."""

    def __init__(self, handler: Any, host: str, port: int, context: ssl.SSLContext) -> None:
        self._socket = bind_socket(host, port)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._context = context
        self._server: asyncio.Server | None = None
        self._web = web.Server(
            handler,
            request_factory=_make_request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=KEEP_ALIVE,
        )

    async def start(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._web, sock=self._socket, ssl=self._context, backlog=BACKLOG, ssl_handshake_timeout=10
        )

    async def refuse(self, seconds: float) -> None:
        """Cut all connections and refuse new ones for a while."""
        await self.close()
        await asyncio.sleep(seconds)
        self._socket = bind_socket(*self.address)
        await self.start()

    def cut(self) -> None:
        """Abort all open connections."""
        for connection in list(self._web.connections):
            if connection.transport is not None:
                connection.transport.abort()

    async def close(self) -> None:
        """Stop accepting and abort what is open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def stop(self) -> None:
        """Stop for good, giving requests that run a moment to end."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._web.shutdown(SHUTDOWN_SECONDS)


def bind_socket(host: str, port: int) -> socket.socket:
    """Return a bound socket; port 0 picks a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setblocking(False)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def _make_request(
    message: Any, payload: Any, protocol: RequestHandler, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY + 1)
