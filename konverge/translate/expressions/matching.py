"""The text of predicates: fields, operators, and how they are joined.

An empty text stands for "matches everything" and vanishes when it is joined with others.
"""

from __future__ import annotations

from collections.abc import Iterable

from konverge.translate.annotations import is_host, is_sni
from konverge.translate.drafts import Entity

PATH = "http.path"
HOST = "http.host"
METHOD = "http.method"
SNI = "tls.sni"
PORT = "net.dst.port"

HTTP_OR_HTTPS = '(net.protocol == "http") || (net.protocol == "https")'
"""What a route gets that would match everything; Kong refuses an empty expression."""

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def quote(text: str) -> str:
    """Return a string literal."""
    return f'"{text.translate(_ESCAPES)}"'


def equals(field: str, value: str) -> str:
    """Return a comparison."""
    return f"{field} == {quote(value)}"


def matches(field: str, pattern: str) -> str:
    """Return a regular expression match."""
    return f"{field} ~ {quote(pattern)}"


def starts(field: str, prefix: str) -> str:
    """Return a prefix match."""
    return f"{field} ^= {quote(prefix)}"


def ends(field: str, suffix: str) -> str:
    """Return a suffix match."""
    return f"{field} =^ {quote(suffix)}"


def every(members: Iterable[str]) -> str:
    """Join with "and"."""
    return _join(" && ", members)


def either(members: Iterable[str]) -> str:
    """Join with "or"."""
    return _join(" || ", members)


def _join(operator: str, members: Iterable[str]) -> str:
    present = [member for member in members if member]
    if len(present) < 2:
        return present[0] if present else ""
    return operator.join(f"({member})" for member in present)


def anchor(pattern: str) -> str:
    """Return a pattern that only matches from the start."""
    return pattern if pattern.startswith("^") else f"^{pattern}"


def header_field(name: str) -> str:
    """Return the field of a request header."""
    return f"http.headers.{name.lower().replace('-', '_')}"


def match_hosts(hosts: Iterable[str]) -> str:
    """Return the predicate of host names; a leading wildcard becomes a suffix match."""
    return either(
        ends(HOST, host[1:]) if host.startswith("*") else equals(HOST, host) for host in hosts if is_host(host)
    )


def match_snis(snis: Iterable[str]) -> str:
    """Return the predicate of server names; invalid ones are skipped."""
    return either(equals(SNI, sni) for sni in snis if is_sni(sni))


def match_methods(methods: Iterable[str]) -> str:
    """Return the predicate of request methods."""
    return either(equals(METHOD, method) for method in methods)


LAYER4_PRIORITY = 1


def express_layer4(entity: Entity) -> None:
    """Turn the server names and ports of a stream route into an expression."""
    ports = [destination["port"] for destination in entity.pop("destinations", ())]
    snis = match_snis(entity.pop("snis", ()))
    entity["expression"] = every((snis, either(f"{PORT} == {port}" for port in ports)))
    entity["priority"] = LAYER4_PRIORITY
