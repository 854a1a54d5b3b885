"""Reads why a connection failed out of a chain of exceptions; no I/O.

httpx, aiohttp, asyncio and ssl wrap one another; only the innermost one knows the cause, so the chain is
searched for what is most telling. Foreign exceptions become :class:`LostConnection` here and nowhere else.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from enum import StrEnum

from konverge.errors import Unavailable
from konverge.kong.outcomes import IdentityCause, UnreachableCause


class Delivery(StrEnum):
    """How much of a request can have reached the other side."""

    NOTHING = "nothing"
    PART = "part"
    WHOLE = "whole"


class LostConnection(Unavailable):
    """No (complete) answer. ``reused`` tells whether the connection had served an earlier request.

    ``alert`` is set where the server refused our certificate during the handshake.
    """

    hint = "reference/errors.md#proxy-unreachable"

    def __init__(
        self,
        message: str,
        cause: UnreachableCause,
        delivery: Delivery = Delivery.NOTHING,
        *,
        reused: bool = False,
        alert: IdentityCause | None = None,
    ) -> None:
        super().__init__(message, reason=cause.value)
        self.cause = cause
        self.delivery = delivery
        self.reused = reused
        self.alert = alert


_VERIFY_CAUSES = {
    # Numbers of OpenSSL's x509_vfy.h: X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH, _CERT_HAS_EXPIRED.
    62: UnreachableCause.SERVER_NAME,
    64: UnreachableCause.SERVER_NAME,
    10: UnreachableCause.SERVER_EXPIRED,
}
_ERRNO_CAUSES = {
    errno.ECONNREFUSED: UnreachableCause.REFUSED,
    errno.ECONNRESET: UnreachableCause.RESET,
    errno.EPIPE: UnreachableCause.RESET,
    errno.ECONNABORTED: UnreachableCause.RESET,
    errno.ENOTCONN: UnreachableCause.RESET,
    errno.EHOSTUNREACH: UnreachableCause.NO_ROUTE,
    errno.ENETUNREACH: UnreachableCause.NO_ROUTE,
    errno.ETIMEDOUT: UnreachableCause.TIMED_OUT,
}
_ALERT_CAUSES = {
    # Fragments of OpenSSL's reason names; the prefixes changed between 1.1, 3.0 and 3.2.
    "ALERT_CERTIFICATE_REQUIRED": IdentityCause.NOT_SENT,
    "ALERT_CERTIFICATE_EXPIRED": IdentityCause.EXPIRED,
    "ALERT_UNKNOWN_CA": IdentityCause.UNKNOWN_AUTHORITY,
    "ALERT_UNSUPPORTED_CERTIFICATE": IdentityCause.WRONG_USAGE,
    "ALERT_BAD_CERTIFICATE": IdentityCause.UNDIAGNOSED,
    "ALERT_CERTIFICATE_UNKNOWN": IdentityCause.UNDIAGNOSED,
    "ALERT_CERTIFICATE_REVOKED": IdentityCause.UNDIAGNOSED,
}
_CLOSED_NAMES = frozenset({"ServerDisconnectedError", "IncompleteReadError", "ClientPayloadError", "ReadError"})
_MALFORMED_NAMES = frozenset(
    {"RemoteProtocolError", "ClientResponseError", "BadStatusLine", "BadHttpMessage", "InvalidHeader"}
)


def walk_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and everything that it wraps, each once."""
    pending, seen = [error], set[int]()
    while pending:
        current = pending.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        wrapped = (
            getattr(current, "certificate_error", None),
            getattr(current, "os_error", None),
            current.__cause__,
            current.__context__,
        )
        pending += [inner for inner in wrapped if isinstance(inner, BaseException)]


def find_alert(error: BaseException) -> IdentityCause | None:
    """Return what a TLS alert says about our certificate, or None where there is no such alert."""
    for inner in walk_chain(error):
        reason = (getattr(inner, "reason", None) or "") if isinstance(inner, ssl.SSLError) else ""
        for fragment, cause in _ALERT_CAUSES.items():
            if fragment in str(reason):
                return cause
    return None


def find_cause(error: BaseException) -> tuple[UnreachableCause, str]:
    """Return the cause and a few words that name it."""
    chain = list(walk_chain(error))
    for judge in (_judge_tls, _judge_system, _judge_name):
        for inner in chain:
            if cause := judge(inner):
                return cause, _describe(inner)
    return UnreachableCause.OTHER, _describe(chain[-1])


def _judge_tls(error: BaseException) -> UnreachableCause | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        # aiohttp's wrapper is one of these as well, but only the original has a code.
        code = getattr(error, "verify_code", None)
        return _VERIFY_CAUSES.get(code, UnreachableCause.SERVER_UNTRUSTED) if code is not None else None
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return UnreachableCause.CLOSED
    return UnreachableCause.TLS if isinstance(error, ssl.SSLError) else None


def _judge_system(error: BaseException) -> UnreachableCause | None:
    if isinstance(error, socket.gaierror):
        return UnreachableCause.NAME_UNKNOWN
    if isinstance(error, TimeoutError) and error.errno is None:
        return UnreachableCause.TIMED_OUT
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        # aiohttp raises one without a number where the connection ended while the body was being sent.
        return UnreachableCause.RESET
    return _ERRNO_CAUSES.get(error.errno or 0) if isinstance(error, OSError) else None


def _judge_name(error: BaseException) -> UnreachableCause | None:
    """Judge exceptions of the HTTP libraries, whose classes this module need not import."""
    name = type(error).__name__
    if name in _CLOSED_NAMES:
        return UnreachableCause.CLOSED
    return UnreachableCause.MALFORMED if name in _MALFORMED_NAMES else None


def _describe(error: BaseException) -> str:
    if message := getattr(error, "verify_message", None):
        return str(message)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__).splitlines()[0][:200]
