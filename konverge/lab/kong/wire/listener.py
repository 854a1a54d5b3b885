"""Listeners: sockets that stay open over a reload, and connections that belong to one generation of workers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

from konverge.lab.kong.wire.connections import ServerContext
from konverge.lab.kong.wire.exchange import Peer
from konverge.lab.kong.wire.http1 import Http1Connection
from konverge.lab.kong.wire.stream import reset

BACKLOG = 16384


class Security:
    """How a listener speaks TLS in one generation; without one it speaks plain HTTP."""

    def accept(self, context: ServerContext, peer: Peer) -> asyncio.Protocol:
        """Return the protocol for a fresh connection."""
        raise NotImplementedError


class Binding:
    """One bound address. ``replace`` switches to the next generation without touching the socket."""

    def __init__(self, host: str, port: int, context: ServerContext, security: Security | None) -> None:
        self.host = host
        self.port = port
        self.context = context
        self.security = security
        self._server: asyncio.Server | None = None
        self.gate: Callable[[], bool] | None = None
        """Refuses connections (a reset) while it returns True."""

    async def open(self) -> None:
        """Bind and listen. Raises OSError where the address is taken."""
        sock = bind_socket(self.host, self.port)
        self.port = int(sock.getsockname()[1])
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, sock=sock, backlog=BACKLOG)

    def replace(self, context: ServerContext, security: Security | None) -> None:
        """Serve new connections with another generation."""
        self.context, self.security = context, security

    def _accept(self) -> asyncio.Protocol:
        return Entrance(self)

    def close(self) -> None:
        """Stop listening; open connections stay."""
        if self._server is not None:
            self._server.close()
            self._server = None


class Entrance(asyncio.Protocol):
    """Looks at a fresh connection and hands it to the protocol of the current generation."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Choose."""
        assert isinstance(transport, asyncio.Transport)
        binding = self._binding
        if binding.gate is not None and binding.gate():
            reset(transport)
            return
        sock = transport.get_extra_info("socket")
        if sock is not None:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(_address(transport, "peername"), _address(transport, "sockname"), worker=binding.context)
        protocol: asyncio.Protocol
        if binding.security is None:
            protocol = Http1Connection(binding.context, peer)
        else:
            peer.tls = True
            protocol = binding.security.accept(binding.context, peer)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


def _address(transport: asyncio.Transport, name: str) -> tuple[str, int]:
    found = transport.get_extra_info(name)
    return (found[0], found[1]) if isinstance(found, tuple) else ("unix", 0)


def bind_socket(host: str, port: int) -> socket.socket:
    """Return a bound socket. Raises OSError."""
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
