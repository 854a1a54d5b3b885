"""Routes compiled for matching: one entry per path, with Kong's priority (``kong/router/transform.lua``)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from konverge.lab.kong.schema.regexes import compile_pattern

Entity = dict[str, Any]


@dataclass(slots=True)
class Asked:
    """What the router looks at in a request."""

    method: str
    host: str
    """Lower case, without the port."""
    path: str
    """Normalised."""
    headers: dict[str, list[str]]
    scheme: str = "http"
    port: int = 80
    sni: str = ""
    query: dict[str, list[str]] = field(default_factory=dict)
    authority: str = ""
    """Lower case, with the port."""
    local_port: int = 0


@dataclass(slots=True)
class Entry:
    """One way into a route."""

    route: Entity
    service: Entity | None
    priority: int
    order: tuple[float, str]
    methods: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    wildcards: tuple[re.Pattern[str], ...] = ()
    headers: tuple[tuple[str, frozenset[str], re.Pattern[str] | None], ...] = ()
    snis: tuple[str, ...] = ()
    prefix: str | None = None
    regex: re.Pattern[str] | None = None

    def matches(self, asked: Asked) -> re.Match[str] | bool:
        """Tell whether a request fits; the match of the regular expression where there is one."""
        if self.methods and asked.method not in self.methods:
            return False
        if (self.hosts or self.wildcards) and not self._fits_host(asked):
            return False
        for name, values, pattern in self.headers:
            given = asked.headers.get(name)
            if given is None or not any(v.lower() in values or (pattern and pattern.search(v)) for v in given):
                return False
        if self.snis and asked.scheme == "https" and not any(_fits_sni(sni, asked.sni) for sni in self.snis):
            return False
        if self.regex is not None:
            return self.regex.match(asked.path) or False
        return self.prefix is None or asked.path.startswith(self.prefix)

    def _fits_host(self, asked: Asked) -> bool:
        if asked.host in self.hosts or asked.authority in self.hosts:
            return True
        return any(p.fullmatch(asked.host) or p.fullmatch(asked.authority) for p in self.wildcards)


def _fits_sni(wanted: str, given: str) -> bool:
    if wanted.startswith("*."):
        return given.endswith(wanted[1:])
    if wanted.endswith(".*"):
        return given.startswith(wanted[:-1])
    return wanted.rstrip(".") == given.rstrip(".")


def wildcard_pattern(host: str) -> re.Pattern[str]:
    """Return the pattern of a host with a wildcard."""
    return re.compile(re.escape(host.lower()).replace(r"\*", ".+"))


def weigh(route: Entity, path: str | None) -> int:
    """Return the priority of one way into a route: more kinds of matchers, plain hosts, headers, regular expressions
    by ``regex_priority``, longer paths - in this order."""
    kinds = sum(bool(route.get(name)) for name in ("methods", "hosts", "headers", "snis", "sources", "destinations"))
    kinds += path is not None
    hosts = route.get("hosts") or []
    plain_hosts = bool(hosts) and not any("*" in host for host in hosts)
    header_count = min(len(route.get("headers") or ()), 255)
    regex = path is not None and path.startswith("~")
    low = route.get("regex_priority") or 0 if regex else 0
    length = 0 if path is None or regex else len(path)
    return (
        (kinds << 61) | (plain_hosts << 60) | (header_count << 52) | (regex << 51) | ((low & 0x7FFFF) << 32) | length
    )


def compile_route(route: Entity, service: Entity | None) -> list[Entry]:
    """Return the ways into a route, one per path."""
    paths: list[str | None] = list(route.get("paths") or [None])
    hosts = [host.lower() for host in route.get("hosts") or ()]
    headers = tuple(_compile_header(name, values) for name, values in (route.get("headers") or {}).items())
    entries = []
    for path in paths:
        regex = compile_pattern(path[1:]) if path is not None and path.startswith("~") else None
        entries.append(
            Entry(
                route,
                service,
                weigh(route, path),
                (route.get("created_at") or 0, route["id"]),
                methods=frozenset(route.get("methods") or ()),
                hosts=frozenset(host for host in hosts if "*" not in host),
                wildcards=tuple(wildcard_pattern(host) for host in hosts if "*" in host),
                headers=headers,
                snis=tuple(sni.lower() for sni in route.get("snis") or ()),
                prefix=path if regex is None else None,
                regex=regex,
            )
        )
    return entries


def _compile_header(name: str, values: list[str]) -> tuple[str, frozenset[str], re.Pattern[str] | None]:
    pattern = None
    if len(values) == 1 and values[0].startswith("~*"):
        pattern = re.compile(values[0][2:], re.IGNORECASE)
    return name.lower(), frozenset(value.lower() for value in values), pattern
