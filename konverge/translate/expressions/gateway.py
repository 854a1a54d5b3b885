"""Expressions and priorities of HTTPRoutes and GRPCRoutes.

The lowest bits of a priority rank routes that are otherwise equal, over all routes of the kind in the cluster: see
:mod:`konverge.translate.expressions.ranking`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from konverge.translate.annotations import read_snis
from konverge.translate.drafts import Entity
from konverge.translate.expressions.matching import (
    HTTP_OR_HTTPS,
    PATH,
    anchor,
    either,
    ends,
    equals,
    every,
    header_field,
    match_hosts,
    match_methods,
    match_snis,
    matches,
    starts,
)
from konverge.translate.objects import annotations_of
from konverge.translate.problems import Object

REGULAR_EXPRESSION = "RegularExpression"
ANY = ".+"


def express_http(entity: Entity, route: Object, host: str, match: Object, replaces_prefix: bool) -> None:
    """Give a route its expression; ``replaces_prefix`` makes the path match capture what is behind the prefix."""
    request = every(
        (
            _match_http_path(match.get("path"), replaces_prefix),
            _match_values(match.get("headers") or (), header_field),
            _match_values(match.get("queryParams") or (), lambda name: f"http.queries.{name}"),
            match_methods([match["method"]] if match.get("method") else ()),
        )
    )
    snis = match_snis(read_snis(annotations_of(route)))
    entity["expression"] = every((match_hosts([host]), snis, request)) or HTTP_OR_HTTPS


def _match_http_path(path: Object | None, replaces_prefix: bool) -> str:
    if path is None:
        return ""
    kind, value = path.get("type") or "PathPrefix", path.get("value") or "/"
    if kind == "Exact":
        return equals(PATH, value)
    if kind == REGULAR_EXPRESSION:
        return matches(PATH, anchor(value))
    if kind != "PathPrefix":
        return ""
    base = value.rstrip("/")
    if replaces_prefix:
        return either((equals(PATH, base or "/"), matches(PATH, f"^{base}(/.*)" if base else "^/(.*)")))
    return either((equals(PATH, base), starts(PATH, f"{base}/"))) if base else starts(PATH, "/")


def _match_values(values: Iterable[Object], field: Callable[[str], str]) -> str:
    return every(
        (matches if item.get("type") == REGULAR_EXPRESSION else equals)(
            field(item.get("name") or ""), item.get("value") or ""
        )
        for item in sorted(values, key=lambda item: item.get("name") or "")
    )


def http_priority(host: str, match: Object) -> int:
    """Return the priority of a match without its lowest 12 bits."""
    path = match.get("path") or {}
    kind = path.get("type") or "PathPrefix"
    length = _size(path.get("value") or "/") if path else 0
    return (
        (2 << 44)
        + (_is_precise(host) << 43)
        + (min(_size(host), 255) << 35)
        + ((bool(path) and kind == "Exact") << 34)
        + ((bool(path) and kind == REGULAR_EXPRESSION) << 33)
        + (min(max(length - 1, 0), 1023) << 23)
        + (bool(match.get("method")) << 22)
        + (min(len(match.get("headers") or ()), 31) << 17)
        + (min(len(match.get("queryParams") or ()), 31) << 12)
    )


def express_grpc(entity: Entity, route: Object, host: str, match: Object) -> None:
    """Give a route its expression."""
    entity["expression"] = (
        every(
            (
                _match_grpc_method(match.get("method")),
                _match_values(match.get("headers") or (), header_field),
                match_hosts([host]),
                match_snis(read_snis(annotations_of(route))),
            )
        )
        or HTTP_OR_HTTPS
    )


def _match_grpc_method(method: Object | None) -> str:
    if method is None:
        return ""
    service, name = method.get("service") or "", method.get("method") or ""
    if not service and not name:
        return starts(PATH, "/")
    if method.get("type") == REGULAR_EXPRESSION:
        return matches(PATH, f"^/{service or ANY}/{name or ANY}")
    if service and name:
        return equals(PATH, f"/{service}/{name}")
    return starts(PATH, f"/{service}/") if service else ends(PATH, f"/{name}")


def grpc_priority(host: str, match: Object) -> int:
    """Return the priority of a match without its lowest 8 bits."""
    method = match.get("method") or {}
    return (
        (1 << 44)
        + (_is_precise(host) << 43)
        + (min(_size(host), 255) << 35)
        + (min(_size(method.get("service") or ""), 2047) << 24)
        + (min(_size(method.get("method") or ""), 2047) << 13)
        + (min(len(match.get("headers") or ()), 31) << 8)
    )


def _is_precise(host: str) -> bool:
    return bool(host) and not host.startswith("*")


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
