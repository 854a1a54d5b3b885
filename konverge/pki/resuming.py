"""Finds out whether a TLS listener lets a client resume an earlier session.

A resumed session skips the check of the client certificate: one that has expired, or whose authority was
replaced by another of the same name, is let in for up to a day. nginx stops that only with
``ssl_session_tickets off`` and ``ssl_session_cache off`` together.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass, field

from konverge.errors import Unavailable
from konverge.pki.handshake import read_refusal

RESUMPTION_TIMEOUT = 5.0
"""Seconds for each of the two connections."""
LONGEST_ANSWER = 16 * 1024


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection to a listener: whether an earlier session was resumed, and whether we were let in."""

    reused: bool
    refusal: str = ""
    """nginx's words where our certificate is not let in."""
    session: ssl.SSLSession | None = field(default=None, repr=False)
    """What the listener gave us to come back with; None where it gives nothing away."""


async def visit(
    host: str,
    port: int,
    server_name: str,
    context: ssl.SSLContext,
    *,
    session: ssl.SSLSession | None = None,
    path: str = "/status",
    timeout: float = RESUMPTION_TIMEOUT,
) -> Visit:
    """Connect, with an earlier session where one is given, and ask once; Unavailable where nobody answers.

    A session belongs to the context that it was made with. The answer is read before the session is taken: TLS 1.3
    sends its tickets after the handshake.
    """
    request = f"GET {path} HTTP/1.1\r\nHost: {server_name}\r\nConnection: close\r\n\r\n".encode()
    return await asyncio.to_thread(_connect, (host, port), server_name, context, session, request, timeout)


async def allows_resumption(
    host: str,
    port: int,
    server_name: str,
    context: ssl.SSLContext,
    *,
    path: str = "/status",
    timeout: float = RESUMPTION_TIMEOUT,
) -> bool:
    """Return whether a second connection resumes the session of a first one; Unavailable where either fails."""
    first = await visit(host, port, server_name, context, path=path, timeout=timeout)
    second = await visit(host, port, server_name, context, session=first.session, path=path, timeout=timeout)
    return second.reused


def _connect(
    address: tuple[str, int],
    server_name: str,
    context: ssl.SSLContext,
    session: ssl.SSLSession | None,
    request: bytes,
    timeout: float,
) -> Visit:
    try:
        with (
            socket.create_connection(address, timeout) as plain,
            context.wrap_socket(plain, server_hostname=server_name, session=session) as secured,
        ):
            secured.sendall(request)
            answer = _read_answer(secured)
            return Visit(bool(secured.session_reused), _find_refusal(answer), secured.session)
    except ssl.SSLError as error:
        if "ALERT" in str(error.reason):
            return Visit(False, str(error.reason))
        raise Unavailable(f"{address[0]}:{address[1]} as {server_name}: {error}") from error
    except OSError as error:
        raise Unavailable(f"{address[0]}:{address[1]} as {server_name}: {error}") from error


def _read_answer(secured: ssl.SSLSocket) -> bytes:
    """Read the head and, of a 400, the page that tells whether it is about our certificate."""
    answer = b""
    while len(answer) < LONGEST_ANSWER and not (b"\r\n\r\n" in answer and not answer.startswith(b"HTTP/1.1 400")):
        piece = secured.recv(LONGEST_ANSWER)
        if not piece:
            break
        answer += piece
    return answer


def _find_refusal(answer: bytes) -> str:
    words = answer.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    return read_refusal(status, answer)
