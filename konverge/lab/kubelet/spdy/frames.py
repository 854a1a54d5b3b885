"""Frames of SPDY/3.1: cutting a byte stream into frames, and writing them.

A control frame is version and type, flags, a 24-bit length and its payload; a data frame carries a stream
number instead of the type. Header blocks of one direction share one zlib stream.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from konverge.errors import Invalid
from konverge.lab.kubelet.spdy.dictionary import HEADER_DICTIONARY

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FLAG_FIN = 0x01
SETTINGS_INITIAL_WINDOW_SIZE = 7
INITIAL_WINDOW = 64 * 1024
"""Bytes of data that may be under way before the peer allows more (section 2.6.8)."""
MAX_FRAME = 1024 * 1024
"""A longer frame is refused: no peer of ours sends more than some 32 KiB at once."""
DATA_CHUNK = 16 * 1024


class SpdyError(Invalid):
    """The peer does not speak SPDY/3.1 as agreed."""

    reason = "SpdyProtocol"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; ``kind`` is 0 for data, else the control type; ``stream`` is 0 for control frames."""

    kind: int
    flags: int
    payload: bytes
    stream: int = 0

    def number(self, offset: int = 0) -> int:
        """Return the 32-bit number at ``offset`` without its reserved top bit."""
        if len(self.payload) < offset + 4:
            raise SpdyError(f"SPDY frame of type {self.kind} is too short: {len(self.payload)} bytes.")
        value: int = struct.unpack_from(">I", self.payload, offset)[0]
        return value & 0x7FFFFFFF


class FrameReader:
    """Cuts received bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that ``data`` completes."""
        self._buffer += data
        while len(self._buffer) >= 8:
            head, rest = struct.unpack_from(">II", self._buffer)
            flags, length = rest >> 24, rest & 0xFFFFFF
            if length > MAX_FRAME:
                raise SpdyError(f"SPDY frame of {length} bytes is longer than {MAX_FRAME}.")
            if len(self._buffer) < 8 + length:
                return
            payload = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            yield _frame(head, flags, payload)


def _frame(head: int, flags: int, payload: bytes) -> Frame:
    if not head & 0x80000000:
        return Frame(0, flags, payload, stream=head)
    version = (head >> 16) & 0x7FFF
    if version != 3:
        raise SpdyError(f"SPDY version {version} is not 3.")
    return Frame(head & 0xFFFF, flags, payload)


def write_control(kind: int, payload: bytes, flags: int = 0) -> bytes:
    """Return a control frame."""
    return struct.pack(">HHI", 0x8003, kind, flags << 24 | len(payload)) + payload


def write_data(stream: int, payload: bytes, fin: bool = False) -> bytes:
    """Return a data frame; ``fin`` closes our half of the stream."""
    return struct.pack(">II", stream, (FLAG_FIN if fin else 0) << 24 | len(payload)) + payload


class HeaderBlocks:
    """Packs and unpacks header blocks; the compression state lives as long as the connection."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(zdict=HEADER_DICTIONARY)
        self._unpacker = zlib.decompressobj(zdict=HEADER_DICTIONARY)

    def pack(self, headers: Mapping[str, str]) -> bytes:
        """Compress a block of lower-case names and values."""
        block = struct.pack(">I", len(headers))
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                block += struct.pack(">I", len(text)) + text
        return self._packer.compress(block) + self._packer.flush(zlib.Z_SYNC_FLUSH)

    def unpack(self, block: bytes) -> dict[str, str]:
        """Decompress a block; a repeated value is joined by NUL in the protocol, here by a comma."""
        try:
            return _headers(self._unpacker.decompress(block, MAX_FRAME))
        except (zlib.error, struct.error, UnicodeDecodeError) as error:
            raise SpdyError(f"SPDY header block cannot be read: {error}") from error


def _headers(plain: bytes) -> dict[str, str]:
    (count,) = struct.unpack_from(">I", plain)
    texts: list[str] = []
    offset = 4
    for _ in range(2 * count):
        (length,) = struct.unpack_from(">I", plain, offset)
        texts.append(plain[offset + 4 : offset + 4 + length].decode())
        offset += 4 + length
    return {name.lower(): value.replace("\0", ",") for name, value in zip(*[iter(texts)] * 2, strict=True)}
