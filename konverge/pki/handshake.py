"""Proves what a TLS listener shows and whom it lets in, by connecting and asking once.

A completed handshake proves nothing about our certificate: nginx lets every client finish it and then answers
HTTP 400. In TLS 1.3 a refusal may also come as an alert after the client is done. So one cheap request follows.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from konverge.errors import Invalid
from konverge.pki.inspecting import Certificate, inspect_der

HANDSHAKE_TIMEOUT = 5.0
"""Seconds for all of it; a draining worker is not waited for."""
_LONGEST_HEAD = 16 * 1024
_TITLE = re.compile(rb"<title>\s*(?:\d{3}\s+)?([^<]*?)\s*</title>", re.IGNORECASE)
_REFUSALS = ("no required ssl certificate was sent", "the ssl certificate error")


class HandshakeReason(StrEnum):
    """How a handshake ended."""

    ACCEPTED = "Accepted"
    CLIENT_REFUSED = "ClientRefused"
    SERVER_UNTRUSTED = "ServerUntrusted"
    TLS_FAILED = "TlsFailed"
    NO_ANSWER = "NoAnswer"
    UNREACHABLE = "Unreachable"


@dataclass(frozen=True, slots=True)
class Handshake:
    """What one connection showed.

    ``certificate`` is the server's, also where it did not verify. ``verified``: we trust the server.
    ``accepted``: the server trusts us, proved by an answer with HTTP ``status``.
    """

    reason: HandshakeReason
    message: str = ""
    certificate: Certificate | None = None
    protocol: str = ""
    verified: bool = False
    accepted: bool = False
    status: int = 0


async def prove(
    host: str,
    port: int,
    server_name: str,
    context: ssl.SSLContext,
    *,
    path: str = "/status",
    timeout: float = HANDSHAKE_TIMEOUT,
) -> Handshake:
    """Connect to an address, verify it as ``server_name`` and ask once; raises for nothing the server does.

    Where the server does not verify, nothing is sent to it: a second connection without our certificate only
    looks at what it shows.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _ask(host, port, server_name, context, path)
    except ssl.SSLCertVerificationError as error:
        return await _look(host, port, server_name, timeout, error.verify_message)
    except ssl.SSLError as error:
        return Handshake(HandshakeReason.TLS_FAILED, _words(error))
    except TimeoutError:
        return Handshake(HandshakeReason.UNREACHABLE, f"no answer within {timeout:g} s")
    except (OSError, EOFError) as error:
        return Handshake(HandshakeReason.UNREACHABLE, _words(error))


async def _ask(host: str, port: int, server_name: str, context: ssl.SSLContext, path: str) -> Handshake:
    reader, writer = await asyncio.open_connection(
        host, port, ssl=context, server_hostname=server_name, limit=_LONGEST_HEAD
    )
    try:
        certificate, protocol = _read_peer(writer)
        reason, message, status = await _request(reader, writer, server_name, path)
    finally:
        await _abort(writer)
    return Handshake(
        reason,
        message,
        certificate,
        protocol,
        verified=True,
        accepted=reason is HandshakeReason.ACCEPTED,
        status=status,
    )


async def _request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server_name: str, path: str
) -> tuple[HandshakeReason, str, int]:
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {server_name}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        page = await _read_page(reader) if status in (400, 495, 496) else b""
    except ssl.SSLError as error:
        alert = "ALERT" in str(error.reason)
        return (HandshakeReason.CLIENT_REFUSED if alert else HandshakeReason.NO_ANSWER), _words(error), 0
    except (OSError, EOFError, ValueError, IndexError, asyncio.LimitOverrunError) as error:
        return HandshakeReason.NO_ANSWER, _words(error), 0
    words = read_refusal(status, page)
    return (HandshakeReason.CLIENT_REFUSED if words else HandshakeReason.ACCEPTED), words, status


def read_refusal(status: int, page: bytes) -> str:
    """Return nginx's words where an answer says that our certificate is not let in, "" where it is."""
    title = _TITLE.search(page)
    words = title.group(1).decode("utf-8", "replace") if title else ""
    if status in (495, 496) or words.lower() in _REFUSALS:
        return words or f"HTTP {status}"
    return ""


async def _read_page(reader: asyncio.StreamReader) -> bytes:
    page = b""
    while not _TITLE.search(page) and len(page) < _LONGEST_HEAD:
        piece = await reader.read(_LONGEST_HEAD)
        if not piece:
            break
        page += piece
    return page


async def _look(host: str, port: int, server_name: str, timeout: float, fault: str) -> Handshake:
    """Return the certificate of a server that did not verify, and why it did not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    certificate, protocol = None, ""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=server_name)
            certificate, protocol = _read_peer(writer)
            await _abort(writer)
    except (OSError, EOFError, Invalid) as error:
        fault = f"{fault}; it could not be looked at: {_words(error)}"
    return Handshake(HandshakeReason.SERVER_UNTRUSTED, fault, certificate, protocol)


async def _abort(writer: asyncio.StreamWriter) -> None:
    """Close at once; a close_notify would have to wait for the other side."""
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


def _read_peer(writer: asyncio.StreamWriter) -> tuple[Certificate | None, str]:
    connection = writer.get_extra_info("ssl_object")
    der = connection.getpeercert(binary_form=True)
    return (inspect_der(der, "the server's certificate") if der else None), str(connection.version() or "")


def _words(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or error or type(error).__name__)[:200]
