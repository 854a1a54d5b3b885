"""One client connection: dialling, one exchange at a time, and the truth about how it ended.

The socket is ours, so that a kept connection can be asked for an end of stream that the event loop has not seen
yet: what Go's transport learns from its background read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from konverge.lab.load.outcomes import ExchangeFailed, Kind
from konverge.lab.load.parsing import BodyListener, Response, ResponseParser


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect: host and port, and the TLS context with the server name to send, or None for plain."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str = ""


class Connection(asyncio.Protocol):
    """A connection that carries exchanges one after the other."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._transport: asyncio.Transport | None = None
        self._parser: ResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._secure = False
        self.closed = False
        self.reusable = True
        self.served = 0
        """Exchanges that were completed on this connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._secure = transport.get_extra_info("ssl_object") is not None

    def data_received(self, data: bytes) -> None:
        """Feed the exchange under way; bytes that nobody asked for end the connection."""
        if self._parser is None:
            # nginx may send a 408 on an idle connection: it must not be taken for the next answer.
            self.reusable = False
            self.close()
            return
        try:
            self._parser.feed(data)
        except ExchangeFailed as failure:
            self._settle(failure)
            self.close()
            return
        if self._parser.done:
            self._settle(None)

    def eof_received(self) -> bool:
        """Finish the exchange under way with what is there; the transport closes itself."""
        self.closed = True
        if self._parser is not None:
            self._finish_parser()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the exchange under way how the connection ended."""
        self.closed = True
        if self._parser is None:
            return
        if error is None:
            self._finish_parser()
        else:
            started = self._parser.started
            stage = "within" if started else "before"
            self._settle(
                ExchangeFailed(
                    Kind.RESET, f"The connection was reset {stage} the response: {error}", answered=started
                )
            )

    def _finish_parser(self) -> None:
        assert self._parser is not None
        try:
            self._parser.finish()
        except ExchangeFailed as failure:
            self._settle(failure)
        else:
            self._settle(None)

    def _settle(self, failure: ExchangeFailed | None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if failure is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(failure)

    def is_stale(self) -> bool:
        """Tell whether this idle connection can not be used any more; looks into the socket itself."""
        if self.closed or not self.reusable or self._transport is None or self._transport.is_closing():
            return True
        try:
            waiting = self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        # On TLS bytes may be a session ticket; on a plain connection nothing can be due while it is idle.
        return not waiting or not self._secure

    async def exchange(self, method: str, request: Sequence[bytes], listener: BodyListener | None = None) -> Response:
        """Send one request (its parts one after the other) and return the response; ExchangeFailed where it breaks.

        Cancelling closes the connection, since its state is then unknown.
        """
        if self.is_stale():
            raise ExchangeFailed(
                Kind.EOF_BEFORE_RESPONSE, "The connection was closed before the request", written=False
            )
        assert self._transport is not None
        parser = ResponseParser(method, listener)
        self._parser = parser
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        complete = False
        try:
            for part in request:
                self._transport.write(part)
            await waiter
            complete = True
        finally:
            self._parser = self._waiter = None
            if not complete:
                self.close()
        self.served += 1
        self.reusable = self.reusable and parser.response.keep_alive and not self.closed
        return parser.response

    def close(self) -> None:
        """Close without waiting; bytes that were not sent are dropped."""
        self.reusable = False
        self.closed = True
        if self._transport is not None:
            self._transport.abort()


async def dial(endpoint: Endpoint, timeout: float) -> Connection:
    """Connect within ``timeout`` seconds; ExchangeFailed of a connect or TLS kind where that fails."""
    try:
        async with asyncio.timeout(timeout):
            return await _connect(endpoint)
    except TimeoutError as error:
        raise _unconnected(endpoint, Kind.CONNECT_TIMEOUT, f"no connection within {timeout:g} s") from error
    except ConnectionRefusedError as error:
        raise _unconnected(endpoint, Kind.CONNECT_REFUSED, "refused") from error
    except ConnectionResetError as error:
        raise _unconnected(endpoint, Kind.RESET, "reset") from error
    except ssl.SSLError as error:
        raise _unconnected(endpoint, Kind.TLS_FAILED, error.reason or str(error)) from error
    except OSError as error:
        raise _unconnected(endpoint, Kind.CONNECT_FAILED, error.strerror or str(error)) from error


async def _connect(endpoint: Endpoint) -> Connection:
    loop = asyncio.get_running_loop()
    family, address = await _resolve(endpoint)
    sock = socket.socket(family, socket.SOCK_STREAM)
    connection = Connection(sock)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(sock, address)
        await loop.create_connection(
            lambda: connection,
            sock=sock,
            ssl=endpoint.tls,
            server_hostname=(endpoint.server_name or endpoint.host) if endpoint.tls else None,
        )
    except BaseException:
        with contextlib.suppress(OSError):
            sock.close()
        raise
    return connection


async def _resolve(endpoint: Endpoint) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        version = ipaddress.ip_address(endpoint.host).version
    except ValueError:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        return family, (str(address[0]), int(address[1]))
    return socket.AF_INET if version == 4 else socket.AF_INET6, (endpoint.host, endpoint.port)


def _unconnected(endpoint: Endpoint, kind: Kind, cause: str) -> ExchangeFailed:
    return ExchangeFailed(kind, f"Connection to {endpoint.host}:{endpoint.port} failed: {cause}", written=False)
