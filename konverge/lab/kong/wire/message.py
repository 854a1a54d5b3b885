"""Heads of HTTP/1.1 messages: parsing and printing.

Names and values are ``str`` in latin-1, as they came; looking up ignores case. Limits are nginx's defaults
(``large_client_header_buffers 4 8k``).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import urlsplit

HeaderItems = list[tuple[str, str]]

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

MAX_HEAD = 32 * 1024
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
REASONS = {int(status): status.phrase for status in HTTPStatus} | {
    405: "Not Allowed",
    413: "Request Entity Too Large",
    414: "Request-URI Too Large",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}
"""Reason phrases where nginx differs from the registry (``ngx_http_header_filter_module.c``)."""


class BadMessage(Exception):
    """The bytes are no HTTP message; ``status`` is what nginx answers."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Headers:
    """An ordered multimap of header fields."""

    __slots__ = ("_first", "items")

    def __init__(self, items: HeaderItems | None = None) -> None:
        self.items: HeaderItems = items if items is not None else []
        self._first: dict[str, str] | None = None

    def _index(self) -> dict[str, str]:
        index = self._first
        if index is None:
            index = self._first = {}
            for name, value in self.items:
                index.setdefault(name.lower(), value)
        return index

    def get(self, name: str) -> str | None:
        """Return the first value of a field given in lower case."""
        return self._index().get(name)

    def get_all(self, name: str) -> list[str]:
        """Return every value of a field given in lower case."""
        return [value for key, value in self.items if key.lower() == name]

    def add(self, name: str, value: str) -> None:
        """Append a field."""
        self.items.append((name, value))
        self._first = None

    def set(self, name: str, value: str) -> None:
        """Replace a field, or append it."""
        lower = name.lower()
        for position, (key, _) in enumerate(self.items):
            if key.lower() == lower:
                rest = [pair for pair in self.items[position + 1 :] if pair[0].lower() != lower]
                self.items[position:] = [(name, value), *rest]
                break
        else:
            self.items.append((name, value))
        self._first = None

    def remove(self, name: str) -> None:
        """Remove every field of that name."""
        lower = name.lower()
        self.items = [pair for pair in self.items if pair[0].lower() != lower]
        self._first = None

    def __contains__(self, name: str) -> bool:
        return name in self._index()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.items)

    def copy(self) -> Headers:
        """Return an independent copy."""
        return Headers(list(self.items))


def parse_fields(lines: list[str]) -> Headers:
    """Parse header lines. Raises BadMessage for a line that is no field."""
    items: HeaderItems = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not TOKEN.fullmatch(name):
            raise BadMessage(f"invalid header line {line[:60]!r}")
        items.append((name, value.strip(" \t")))
    return Headers(items)


def parse_request_head(head: bytes) -> tuple[str, str, str, Headers]:
    """Return (method, target, version, headers) of a request head without its final empty line."""
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not TOKEN.fullmatch(parts[0]) or not parts[2].startswith("HTTP/1."):
        raise BadMessage(f"invalid request line {lines[0][:60]!r}")
    return parts[0], parts[1], parts[2][5:], parse_fields(lines[1:])


def parse_response_head(head: bytes) -> tuple[int, str, str, Headers]:
    """Return (status, reason, version, headers) of a response head without its final empty line."""
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise BadMessage(f"invalid status line {lines[0][:60]!r}")
    return int(parts[1]), parts[2] if len(parts) > 2 else "", parts[0][5:], parse_fields(lines[1:])


def print_head(first: str, fields: Iterable[tuple[str, str]]) -> bytes:
    """Return the bytes of a head, the empty line included."""
    lines = [first]
    lines.extend(f"{name}: {value}" for name, value in fields)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


@lru_cache(maxsize=8)
def _print_date(second: int) -> str:
    moment = time.gmtime(second)
    day, month = DAYS[moment.tm_wday], MONTHS[moment.tm_mon - 1]
    clock = f"{moment.tm_hour:02}:{moment.tm_min:02}:{moment.tm_sec:02}"
    return f"{day}, {moment.tm_mday:02} {month} {moment.tm_year} {clock} GMT"


def print_date(offset: float = 0.0) -> str:
    """Return the Date field (RFC 9110 section 5.6.7) of now plus an offset in seconds."""
    return _print_date(int(time.time() + offset))


def phrase(status: int) -> str:
    """Return nginx's reason phrase."""
    return REASONS.get(status, "")


def split_target(target: str) -> tuple[str, str]:
    """Return (path, query) of a request target in origin or absolute form."""
    if target.startswith("/") or target == "*":
        path, _, query = target.partition("?")
        return path, query
    parts = urlsplit(target)
    return parts.path or "/", parts.query
