"""An HTTP/1.1 response parser that does no I/O and knows at every byte how far the response has come (RFC 9112).

Strict where a client must be: a status line or a header that is not one is an error, and so is a byte after the
end of the response, since no second request has been sent yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum, auto

from konverge.lab.load.outcomes import ExchangeFailed, Kind

LONGEST_HEAD = 64 * 1024
"""Bytes; more than nginx' four 8 KiB header buffers and Go's default of 1 MiB less a margin for mistakes."""
LONGEST_SIZE_LINE = 1024
NO_BODY = frozenset({204, 304})
HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]{1,15}")

BodyListener = Callable[[bytes], None]


class Stage(Enum):
    """What comes next."""

    HEAD = auto()
    LENGTH = auto()
    """Body bytes of a known count."""
    CHUNK_SIZE = auto()
    CHUNK_DATA = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    UNTIL_CLOSE = auto()
    DONE = auto()


class Response:
    """Status, headers (names in lower case, the last of equal names wins) and body of one response."""

    __slots__ = ("body", "headers", "keep_alive", "listener", "status")

    def __init__(self, listener: BodyListener | None = None) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.keep_alive = True
        self.listener = listener

    def take(self, data: bytes) -> None:
        """Keep a part of the body, or hand it to the listener."""
        if self.listener is None:
            self.body += data
        else:
            self.listener(data)


class ResponseParser:
    """Parses one response; :meth:`feed` may be called with any split of its bytes."""

    __slots__ = ("_buffer", "_left", "method", "response", "stage", "started")

    def __init__(self, method: str, listener: BodyListener | None = None) -> None:
        self.method = method
        self.response = Response(listener)
        self.stage = Stage.HEAD
        self.started = False
        """True once a byte of the response was seen."""
        self._buffer = bytearray()
        self._left = 0

    @property
    def done(self) -> bool:
        """True once the response is complete."""
        return self.stage is Stage.DONE

    def feed(self, data: bytes) -> None:
        """Take bytes from the connection; ExchangeFailed(malformed_response) where they are no response."""
        if not data:
            return
        self.started = True
        self._buffer += data
        while self._advance():
            pass
        if self.done and self._buffer:
            raise self._malformed(f"{len(self._buffer)} bytes after the end of the response")

    def finish(self) -> None:
        """Tell that the connection has ended: completes a body that lasts until then, else ExchangeFailed."""
        if self.stage is Stage.UNTIL_CLOSE:
            self.stage = Stage.DONE
        if self.done:
            return
        if not self.started:
            raise ExchangeFailed(Kind.EOF_BEFORE_RESPONSE, "The connection ended before any byte of the response")
        if self.stage is Stage.LENGTH:
            raise ExchangeFailed(
                Kind.TRUNCATED, f"The connection ended {self._left} bytes before the end of the body", answered=True
            )
        raise ExchangeFailed(
            Kind.EOF_MID_RESPONSE, f"The connection ended in the response ({self.stage.name})", answered=True
        )

    def _advance(self) -> bool:
        """Do one step; False where more bytes are needed or none are left."""
        if not self._buffer and self.stage is not Stage.DONE:
            return False
        if self.stage is Stage.HEAD:
            return self._read_head()
        if self.stage is Stage.LENGTH:
            return self._read_data(Stage.DONE)
        if self.stage is Stage.CHUNK_DATA:
            return self._read_data(Stage.CHUNK_END)
        if self.stage is Stage.CHUNK_SIZE:
            return self._read_chunk_size()
        if self.stage is Stage.CHUNK_END:
            return self._read_chunk_end()
        if self.stage is Stage.TRAILERS:
            return self._read_trailer()
        if self.stage is Stage.UNTIL_CLOSE:
            self.response.take(bytes(self._buffer))
            self._buffer.clear()
        return False

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > LONGEST_HEAD:
                raise self._malformed(f"no end of the head within {LONGEST_HEAD} bytes")
            if len(self._buffer) >= 5 and not self._buffer.startswith(b"HTTP/"):
                raise self._malformed("the answer is not HTTP")
            return False
        head = bytes(self._buffer[:end]).decode("latin-1")
        del self._buffer[: end + 4]
        status_line, *lines = head.split("\r\n")
        status, minor = self._parse_status_line(status_line)
        if 100 <= status < 200:
            # Informational: the final response follows (RFC 9110, 15.2). An upgrade is never asked for here.
            if status == 101:
                raise self._malformed("the server switched protocols unasked")
            return True
        self.response.status = status
        self.response.headers = self._parse_headers(lines)
        self._choose_framing(minor)
        return not self.done or bool(self._buffer)

    def _parse_status_line(self, line: str) -> tuple[int, int]:
        version, _, rest = line.partition(" ")
        code = rest[:3]
        if (
            version not in ("HTTP/1.1", "HTTP/1.0")
            or not code.isdigit()
            or len(code) < 3
            or rest[3:4] not in ("", " ")
        ):
            raise self._malformed(f"the status line is {line[:80]!r}")
        return int(code), int(version[-1])

    def _parse_headers(self, lines: list[str]) -> dict[str, str]:
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise self._malformed(f"a header line is {line[:80]!r}")
            headers[name.lower()] = value.strip()
        return headers

    def _choose_framing(self, minor: int) -> None:
        headers = self.response.headers
        options = {option.strip().lower() for option in headers.get("connection", "").split(",")}
        self.response.keep_alive = "close" not in options and (minor == 1 or "keep-alive" in options)
        if self.method == "HEAD" or self.response.status in NO_BODY:
            self.stage = Stage.DONE
        elif "transfer-encoding" in headers:
            if headers["transfer-encoding"].lower() != "chunked":
                raise self._malformed(f"the transfer encoding is {headers['transfer-encoding'][:40]!r}")
            self.stage = Stage.CHUNK_SIZE
        elif "content-length" in headers:
            self._left = self._parse_length(headers["content-length"])
            self.stage = Stage.LENGTH if self._left else Stage.DONE
        else:
            self.response.keep_alive = False
            self.stage = Stage.UNTIL_CLOSE

    def _parse_length(self, text: str) -> int:
        if not (text.isascii() and text.isdigit()):
            raise self._malformed(f"Content-Length is {text[:40]!r}")
        return int(text)

    def _read_data(self, following: Stage) -> bool:
        part = bytes(self._buffer[: self._left])
        del self._buffer[: len(part)]
        self._left -= len(part)
        self.response.take(part)
        if self._left:
            return False
        self.stage = following
        return following is not Stage.DONE

    def _read_chunk_size(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > LONGEST_SIZE_LINE:
                raise self._malformed("a chunk size has no end")
            return False
        text = bytes(self._buffer[:end]).partition(b";")[0].strip()
        # int() would also take "+5", "0x5" and "5_0".
        if not HEXADECIMAL.fullmatch(text):
            raise self._malformed(f"a chunk size is {text[:40]!r}")
        self._left = int(text, 16)
        del self._buffer[: end + 2]
        self.stage = Stage.CHUNK_DATA if self._left else Stage.TRAILERS
        return True

    def _read_chunk_end(self) -> bool:
        if len(self._buffer) < 2:
            return False
        if not self._buffer.startswith(b"\r\n"):
            raise self._malformed("a chunk is longer than its size")
        del self._buffer[:2]
        self.stage = Stage.CHUNK_SIZE
        return True

    def _read_trailer(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > LONGEST_HEAD:
                raise self._malformed("the trailers have no end")
            return False
        del self._buffer[: end + 2]
        if end == 0:
            self.stage = Stage.DONE
            return False
        return True

    def _malformed(self, what: str) -> ExchangeFailed:
        return ExchangeFailed(Kind.MALFORMED_RESPONSE, f"Malformed response: {what}", answered=True)
