"""Finds out whether a TLS listener lets a client resume an earlier session.

A resumed session skips the check of the client certificate: one that has expired, or whose authority was
replaced by another of the same name, is let in for up to a day. nginx stops that only with
``ssl_session_tickets off`` and ``ssl_session_cache off`` together.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

from konverge.errors import Unavailable

RESUMPTION_TIMEOUT = 5.0
"""Seconds for each of the two connections."""


async def allows_resumption(
    host: str,
    port: int,
    server_name: str,
    context: ssl.SSLContext,
    *,
    path: str = "/status",
    timeout: float = RESUMPTION_TIMEOUT,
) -> bool:
    """Return whether a second connection resumes the session of a first one; Unavailable where either fails.

    The answer to one request is read on the first: TLS 1.3 sends its tickets after the handshake.
    """
    return await asyncio.to_thread(_resume, (host, port), server_name, context, path, timeout)


def _resume(address: tuple[str, int], server_name: str, context: ssl.SSLContext, path: str, timeout: float) -> bool:
    request = f"GET {path} HTTP/1.1\r\nHost: {server_name}\r\nConnection: close\r\n\r\n".encode()
    session: ssl.SSLSession | None = None
    reused = False
    try:
        for _ in range(2):
            with (
                socket.create_connection(address, timeout) as plain,
                context.wrap_socket(plain, server_hostname=server_name, session=session) as secured,
            ):
                secured.sendall(request)
                secured.recv(1024)
                session, reused = secured.session, bool(secured.session_reused)
    except OSError as error:
        raise Unavailable(f"{address[0]}:{address[1]} as {server_name}: {error}") from error
    return reused
