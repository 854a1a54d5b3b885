"""Opens what is compressed, wherever it stands in some bytes and however deep, so that it can be searched."""

from __future__ import annotations

import base64
import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator

DEPTH = 4
LARGEST = 64 * 1024 * 1024
"""Bytes of one compressed piece, folded or unfolded, that are looked at."""
BEGINNINGS = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]|BZh[1-9]1AY&SY|\xfd7zXZ\x00")
TEXTS = re.compile(rb"(?:H4sI|eJ[w-z]|eN[o-r]|eA[E-H]|eF[4-7]|QlpoO|[/_]Td6WFoA)(?:[A-Za-z0-9+/_-]|\\n|\s){24,}")
"""How base64 of the same begins."""
URL_UNSAFE = bytes.maketrans(b"-_", b"+/")


def unfold(content: bytes, depth: int = DEPTH) -> Iterator[bytes]:
    """Yield bytes as they are, then what is compressed in them: gzip, zlib, bzip2 and xz, raw or in base64."""
    yield content
    if depth == 0:
        return
    for found in BEGINNINGS.finditer(content):
        inner = _open(memoryview(content)[found.start() : found.start() + LARGEST])
        if inner:
            yield from unfold(inner, depth - 1)
    for found in TEXTS.finditer(content):
        text = re.sub(rb"\\n|\s", b"", found.group()).translate(URL_UNSAFE)
        yield from _unfold_opened(base64.b64decode(text[: len(text) // 4 * 4]), depth)


def _unfold_opened(content: bytes, depth: int) -> Iterator[bytes]:
    inner = _open(memoryview(content))
    if inner:
        yield from unfold(inner, depth - 1)


def _open(folded: memoryview) -> bytes:
    """Return what can be unfolded of it, which may be cut off; empty where it only looked like it."""
    start = bytes(folded[:3])
    try:
        if start in (b"BZh", b"\xfd7z"):
            opener: Callable[..., bytes] = (
                bz2.BZ2Decompressor().decompress if start == b"BZh" else lzma.LZMADecompressor().decompress
            )
            return opener(folded, LARGEST)
        return zlib.decompressobj(wbits=47).decompress(folded, LARGEST)
    except (zlib.error, lzma.LZMAError, OSError, EOFError):
        return b""
