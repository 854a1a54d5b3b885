"""Paths: normalising what a client sends, and building what the upstream gets."""

from __future__ import annotations

import re
from functools import lru_cache

UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")


def _decode(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if character in UNRESERVED else "%" + found[1].upper()


@lru_cache(maxsize=4096)
def normalise(path: str) -> str:
    """Decode what needs no escaping, resolve dot segments, merge slashes (``kong.tools.uri.normalize``)."""
    if "%" in path:
        path = ESCAPE.sub(_decode, path)
    if "//" not in path and "/." not in path:
        return path
    out: list[str] = []
    parts = path.split("/")
    for part in parts[1:]:
        if part == "..":
            if out:
                out.pop()
        elif part not in (".", ""):
            out.append(part)
    tail = "/" if parts[-1] in ("", ".", "..") and out else ""
    return "/" + "/".join(out) + tail


def build_upstream_path(service_path: str, request_path: str, matched: str | None, strip: bool, handling: str) -> str:
    """Return the path for the upstream; ``matched`` is the part that the route's path has matched."""
    base = service_path or "/"
    rest = request_path
    if strip and matched:
        rest = request_path[len(matched) :]
    if handling == "v1":
        return _join_v1(base, rest)
    if base == "/":
        return rest if rest.startswith("/") else "/" + rest
    if not rest:
        return base
    if base.endswith("/"):
        return base + rest.removeprefix("/")
    if rest.startswith("/"):
        return base + rest
    # Version 0 puts a slash between only where something was stripped down to a bare word.
    return base + "/" + rest


def _join_v1(base: str, rest: str) -> str:
    if base.endswith("/"):
        return base + rest.removeprefix("/") if rest.startswith("/") else base + rest
    return base + rest if rest else base
