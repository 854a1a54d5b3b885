"""The routing table: immutable, replaced as a whole.

Prefixes are looked up in a dictionary by every prefix of the request's path, so the cost grows with the length of the
path, not with the number of routes; regular expressions and routes without a path are few and tried in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from konverge.lab.kong.router.expressions import ExpressionEntry, compile_expression
from konverge.lab.kong.router.routes import Asked, Entity, Entry, compile_route
from konverge.lab.kong.state import Snapshot

CACHE_SIZE = 8192


@dataclass(frozen=True, slots=True)
class Match:
    """The route of a request."""

    route: Entity
    service: Entity | None
    prefix: str | None
    """The part of the path that was matched, for strip_path."""
    captures: dict[str, str]


class Router:
    """The table of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        services = snapshot.entities.get("services", {})
        self._prefixes: dict[str, list[Entry]] = {}
        self._others: list[Entry] = []
        self._expressions: list[ExpressionEntry] = []
        self._cache: dict[tuple[str, str, str, str, str, str], Match | None] = {}
        self._cacheable = True
        for route in snapshot.list("routes"):
            reference = route.get("service")
            service = services.get(reference["id"]) if reference else None
            if service is not None and service.get("enabled") is False:
                continue
            self._add(route, service)
        self._others.sort(key=_rank)
        self._expressions.sort(key=lambda entry: (-entry.priority, entry.route["id"]))

    def _add(self, route: Entity, service: Entity | None) -> None:
        if route.get("expression"):
            self._expressions.append(compile_expression(route, service))
            self._cacheable = False
            return
        for entry in compile_route(route, service):
            if entry.headers:
                self._cacheable = False
            if entry.prefix is not None:
                self._prefixes.setdefault(entry.prefix, []).append(entry)
            else:
                self._others.append(entry)

    @cached_property
    def size(self) -> int:
        """Return the number of routes."""
        return len(self.snapshot.entities.get("routes", ()))

    def find(self, asked: Asked) -> Match | None:
        """Return the route of a request."""
        if not self._cacheable:
            return self._search(asked)
        key = (asked.method, asked.authority, asked.path, asked.scheme, asked.sni, asked.host)
        try:
            return self._cache[key]
        except KeyError:
            if len(self._cache) >= CACHE_SIZE:
                self._cache.clear()
            found = self._cache[key] = self._search(asked)
            return found

    def _search(self, asked: Asked) -> Match | None:
        for expression in self._expressions:
            if expression.matches(asked):
                return Match(expression.route, expression.service, expression.matched_prefix(asked), {})
        best: Entry | None = None
        best_match: re.Match[str] | bool = False
        for entry in self._candidates(asked.path):
            if best is not None and _rank(entry) >= _rank(best):
                continue
            found = entry.matches(asked)
            if found:
                best, best_match = entry, found
        if best is None:
            return None
        if isinstance(best_match, re.Match):
            captures = {key: value or "" for key, value in best_match.groupdict().items()}
            captures |= {str(at + 1): value or "" for at, value in enumerate(best_match.groups())}
            return Match(best.route, best.service, best_match.group(0), captures)
        return Match(best.route, best.service, best.prefix, {})

    def _candidates(self, path: str) -> Iterable[Entry]:
        yield from self._others
        prefixes = self._prefixes
        for end in range(len(path), 0, -1):
            entries = prefixes.get(path[:end])
            if entries is not None:
                yield from entries


def _rank(entry: Entry) -> tuple[int, float, str]:
    return (-entry.priority, *entry.order)
