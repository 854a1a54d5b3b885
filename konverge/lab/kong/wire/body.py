"""Bodies: pulling a message body out of a byte stream, whatever its framing."""

from __future__ import annotations

from typing_extensions import override

from konverge.lab.kong.wire.message import BadMessage, Headers
from konverge.lab.kong.wire.stream import ByteStream, StreamClosed

CHUNK = 64 * 1024


class Body:
    """A body that is read piece by piece; ``read()`` returns b"" at its end."""

    length: int | None = None
    """Announced bytes; None where it is not known before the end."""

    ended = True

    async def read(self) -> bytes:
        """Return the next piece, b"" at the end. Raises StreamClosed where the peer stopped early."""
        return b""

    async def read_all(self, limit: int | None = None) -> bytes:
        """Return the whole body. Raises BodyTooLarge above ``limit`` bytes."""
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            size += len(piece)
            if limit is not None and size > limit:
                raise BodyTooLarge(f"the body is larger than {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)


class BodyTooLarge(Exception):
    """The body is over the limit of the listener."""


async def _take_piece(stream: ByteStream, most: int) -> bytes:
    if not stream.buffer and not await stream.wait_data():
        raise StreamClosed("the peer closed in the middle of a body")
    return stream.take(min(most, CHUNK))


class LengthBody(Body):
    """A body with Content-Length."""

    def __init__(self, stream: ByteStream, length: int) -> None:
        self._stream = stream
        self.length = length
        self._left = length
        self.ended = length == 0

    @override
    async def read(self) -> bytes:
        if self.ended:
            return b""
        piece = await _take_piece(self._stream, self._left)
        self._left -= len(piece)
        self.ended = self._left == 0
        return piece


class ChunkedBody(Body):
    """A body with Transfer-Encoding: chunked."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._left = 0
        self._first = True
        self.ended = False

    async def _line(self) -> bytes:
        while (end := self._stream.buffer.find(b"\r\n")) < 0:
            if len(self._stream.buffer) > 8192:
                raise BadMessage("chunk header too long")
            if not await self._stream.wait_data():
                raise StreamClosed("the peer closed in the middle of a body")
        line = self._stream.take(end)
        self._stream.take(2)
        return line

    async def _next_chunk(self) -> None:
        if not self._first and await self._line():
            raise BadMessage("chunk without its line end")
        self._first = False
        try:
            self._left = int((await self._line()).split(b";")[0], 16)
        except ValueError:
            raise BadMessage("invalid chunk size") from None
        if self._left == 0:
            while await self._line():
                pass
            self.ended = True

    @override
    async def read(self) -> bytes:
        if not self._left and not self.ended:
            await self._next_chunk()
        if self.ended:
            return b""
        piece = await _take_piece(self._stream, self._left)
        self._left -= len(piece)
        return piece


class EofBody(Body):
    """A body that ends with the connection."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.ended = False

    @override
    async def read(self) -> bytes:
        if not self._stream.buffer and not await self._stream.wait_data():
            self.ended = True
            return b""
        return self._stream.take(CHUNK)


class BytesBody(Body):
    """A body that is in memory already."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._data = data
        self.ended = not data

    @override
    async def read(self) -> bytes:
        data, self._data = self._data, b""
        self.ended = True
        return data


def frame_body(stream: ByteStream, headers: Headers, *, request: bool) -> Body:
    """Return the body that follows a head (RFC 9112 section 6). Raises BadMessage for contradictions."""
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if coding.lower().split(",")[-1].strip() != "chunked":
            raise BadMessage(f"unknown transfer encoding {coding!r}", 501)
        return ChunkedBody(stream)
    length = headers.get("content-length")
    if length is not None:
        if not length.isdigit():
            raise BadMessage(f"invalid Content-Length {length!r}")
        return LengthBody(stream, int(length))
    return Body() if request else EofBody(stream)
