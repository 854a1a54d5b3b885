"""How one request or session ended, and the one error that carries a failure from the wire to the count."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from konverge.errors import Unavailable


class Kind(StrEnum):
    """Failures by what the client saw. Stable words of the report; ``bad_status_<code>`` comes beside them."""

    CONNECT_REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    CONNECT_FAILED = "connect_failed"
    """Unreachable, no such name, out of ports, or closed while connecting."""
    TLS_FAILED = "tls_failed"
    RESET = "reset"
    """RST, or a broken pipe while writing, at any stage."""
    EOF_BEFORE_RESPONSE = "eof_before_response"
    EOF_MID_RESPONSE = "eof_mid_response"
    """The end came within the head, or before the last chunk of a chunked body."""
    TRUNCATED = "truncated"
    """The end came before Content-Length bytes of body."""
    TIMEOUT = "timeout"
    MALFORMED_RESPONSE = "malformed_response"
    WRONG_BODY = "wrong_body"
    STREAM_CUT = "stream_cut"
    WEBSOCKET_CLOSED = "websocket_closed"
    """A WebSocket ended without a closing handshake of 1000 or 1001, or its echo stayed away."""
    CLIENT_OVERLOADED = "client_overloaded"
    """Never sent: the generator had ``max_in_flight`` requests under way. Not the server's doing alone."""
    CLIENT_ERROR = "client_error"
    """A fault of the generator itself: counted, so that no request goes missing from the sum."""


class Ending(StrEnum):
    """The four ways in which a request is counted; their counts add up to the total."""

    OK = "ok"
    RETRIED = "retried_on_stale_connection"
    """Answered as expected, by the one retry that HTTP allows after a kept connection was found dead."""
    CLOSED_GRACEFULLY = "closed_gracefully"
    """A session that the server ended early and properly."""
    FAILED = "failed"


def bad_status(code: int) -> str:
    """Return the kind of an unexpected status."""
    return f"bad_status_{code}"


class ExchangeFailed(Unavailable):
    """One exchange failed on the wire.

    ``answered`` is True once a byte of the response was there, ``written`` once the request was handed to the
    connection: together they decide whether a retry is allowed.
    """

    reason = "ExchangeFailed"
    hint = "reference/load.md#failures"

    def __init__(self, kind: str, message: str, *, answered: bool = False, written: bool = True) -> None:
        super().__init__(message)
        self.kind = str(kind)
        self.answered = answered
        self.written = written


def as_failure(error: Exception) -> ExchangeFailed:
    """Return an exception as a failure that can be counted."""
    if isinstance(error, ExchangeFailed):
        return error
    return ExchangeFailed(Kind.CLIENT_ERROR, f"The generator itself failed: {type(error).__name__}: {error}")


@dataclass(slots=True)
class Outcome:
    """How one request or session ended; moments are seconds of the event loop's clock."""

    class_name: str
    target: str
    intended: float
    """When it should have started; latency counts from here."""
    finished: float = 0.0
    ending: Ending = Ending.OK
    kind: str = ""
    detail: str = ""
    latency: float = 0.0
    """Seconds to the whole response; of a session, to its first byte or its handshake."""
