"""Parameters of a request, the way Lapis and Kong collect them: query, form, multipart, JSON."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_plus

import orjson

ACCEPTED = (
    "application/json",
    "multipart/form-data",
    "application/x-www-form-urlencoded",
    "application/yaml",
    "text/yaml",
)
"""Prefixes of the content types that get past the gate; the comparison minds the case."""


class BadJson(Exception):
    """The body says JSON and is none."""


class CrashingJson(Exception):
    """A JSON scalar: valid, but Kong's code trips over it."""


def parse_pairs(text: str) -> dict[str, Any]:
    """Parse a query or a form; a repeated name becomes a list, a name without "=" becomes True."""
    found: dict[str, Any] = {}
    for part in text.split("&"):
        if not part:
            continue
        name, equals, value = part.partition("=")
        key = unquote_plus(name)
        item: Any = unquote_plus(value) if equals else True
        if key in found:
            before = found[key]
            found[key] = [*before, item] if isinstance(before, list) else [before, item]
        else:
            found[key] = item
    return found


def accepts(content_type: str | None) -> bool:
    """Tell whether a body of this type is looked at."""
    return content_type is not None and content_type.startswith(ACCEPTED)


def parse_body(content_type: str | None, body: bytes) -> dict[str, Any]:
    """Return the parameters in a body. Raises BadJson and CrashingJson."""
    kind = content_type or ""
    if kind.startswith("application/json"):
        return _parse_json(body)
    if kind.startswith("multipart/form-data"):
        return parse_multipart(kind, body)
    if kind.startswith("application/x-www-form-urlencoded"):
        return parse_pairs(body.decode("utf-8", "surrogateescape"))
    return {}


def _parse_json(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadJson from None
    if isinstance(value, list):
        if value:
            raise CrashingJson
        return {}
    if not isinstance(value, dict):
        raise CrashingJson
    return value


def parse_multipart(content_type: str, body: bytes) -> dict[str, Any]:
    """Return the fields of a multipart form; values are bytes."""
    boundary = content_type.partition("boundary=")[2].split(";")[0].strip().strip('"')
    found: dict[str, Any] = {}
    if not boundary:
        return found
    for part in body.split(b"--" + boundary.encode())[1:]:
        head, blank, value = part.partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0]
        if blank and name:
            found[name.decode("utf-8", "replace")] = value.removesuffix(b"\r\n")
    return found


def last(value: Any) -> Any:
    """Return the last of a repeated parameter."""
    return value[-1] if isinstance(value, list) and value else value
