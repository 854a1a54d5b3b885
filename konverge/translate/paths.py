"""From Ingress paths to Kong paths, for the traditional router."""

from __future__ import annotations

import re

REGEX_PREFIX = "konghq.com/regex-prefix"
DEFAULT_REGEX_PREFIX = "/~"

EXACT = "Exact"
PREFIX = "Prefix"
IMPLEMENTATION_SPECIFIC = "ImplementationSpecific"

_SLASHES = re.compile("/{2,}")
_PLAIN = re.compile(r"[a-zA-Z0-9.\-_~/%]*")
"""Paths that the controller of Kong 2 took for literal; anything else it took for a regular expression."""


def clean_path(path: str | None) -> str:
    """Return the path with every run of slashes made one; "/" where it is absent."""
    if not path:
        return "/"
    return _SLASHES.sub("/", path) if "//" in path else path


def convert_path(path: str, path_type: str) -> list[str]:
    """Return the Kong paths of an Ingress path; none for an unknown type."""
    if path_type == IMPLEMENTATION_SPECIFIC:
        return [path]
    if path_type == PREFIX:
        base = path.strip("/")
        return [f"/{base}/", f"~/{base}$"] if base else ["/"]
    if path_type == EXACT:
        return [f"~/{path.lstrip('/')}$"]
    return []


def mark_regex(path: str, prefix: str, legacy: bool) -> str:
    """Put Kong's ``~`` in front of a path that the prefix, or the legacy detection, calls a regular expression."""
    if path.startswith(prefix):
        return "~" + path[len(prefix) :]
    if legacy and not path.startswith("~") and not _PLAIN.fullmatch(path):
        return "~" + path
    return path
