"""Expressions and priorities of Ingress routes."""

from __future__ import annotations

from collections.abc import Mapping

from konverge.translate.annotations import HEADERS, HOST_ALIASES, METHODS, SNIS, read_headers, read_methods, read_snis
from konverge.translate.drafts import Entity
from konverge.translate.expressions.matching import (
    PATH,
    anchor,
    either,
    equals,
    every,
    header_field,
    match_hosts,
    match_methods,
    match_snis,
    matches,
    starts,
)
from konverge.translate.objects import split_list
from konverge.translate.paths import EXACT, IMPLEMENTATION_SPECIFIC, PREFIX

_KIND_BITS = 3 << 44
"""Ingress routes rank above HTTPRoutes (2) and GRPCRoutes (1)."""
_REGEX_VALUE = "~*"


def default_expression(entity: Entity) -> None:
    """Give the route of a default backend its expression: everything, last."""
    entity["expression"] = starts(PATH, "/")
    entity["priority"] = 0


def express_ingress(
    entity: Entity, annotations: Mapping[str, str], host: str, paths: list[tuple[str, str]], prefix: str
) -> None:
    """Give the route of an Ingress its expression and priority."""
    hosts = ([host] if host else []) + split_list(annotations.get(HOST_ALIASES))
    headers = read_headers(annotations)
    entity["expression"] = every(
        (
            match_hosts(hosts),
            either(_match_path(path, path_type, prefix) for path, path_type in paths),
            _match_headers(headers),
            match_methods(read_methods(annotations)),
            match_snis(read_snis(annotations)),
        )
    )
    entity["priority"] = _prioritise(annotations, hosts, len(headers), paths, prefix)


def _match_path(path: str, path_type: str, prefix: str) -> str:
    if path_type == PREFIX:
        base = path.strip("/")
        return either((equals(PATH, f"/{base}"), starts(PATH, f"/{base}/"))) if base else starts(PATH, "/")
    if path_type == EXACT:
        return equals(PATH, "/" + path.lstrip("/"))
    if path_type == IMPLEMENTATION_SPECIFIC:
        if path.startswith(prefix):
            return matches(PATH, anchor(path[len(prefix) :] or "/"))
        return starts(PATH, path)
    return ""


def _match_headers(headers: Mapping[str, list[str]]) -> str:
    return every(
        either(
            matches(header_field(name), value[len(_REGEX_VALUE) :])
            if value.startswith(_REGEX_VALUE)
            else equals(header_field(name), value)
            for value in headers[name]
        )
        for name in sorted(headers)
        if name.lower() != "host"
    )


def _prioritise(
    annotations: Mapping[str, str],
    hosts: list[str],
    headers: int,
    paths: list[tuple[str, str]],
    prefix: str,
) -> int:
    fields = 1 + bool(hosts) + any(key.startswith(HEADERS) for key in annotations)
    fields += (METHODS in annotations) + (SNIS in annotations)
    plain_host = bool(hosts) and not any(host.startswith("*") for host in hosts)
    exact, longest = False, 0
    for path, path_type in paths:
        is_exact, length = _measure(path, path_type, prefix)
        exact = exact or is_exact
        longest = max(longest, length)
    return (
        _KIND_BITS
        + (fields << 41)
        + (min(headers, 255) << 33)
        + (plain_host << 32)
        + (exact << 16)
        + min(longest, 65535)
    )


def _measure(path: str, path_type: str, prefix: str) -> tuple[bool, int]:
    """Return whether a path is precise (exact, prefix or regular expression) and its length in bytes."""
    if path_type == PREFIX:
        base = path.strip("/")
        return True, 2 + _size(base) if base else 1
    if path_type == EXACT:
        return True, 1 + _size(path.lstrip("/"))
    if path.startswith(prefix):
        return True, _size(path[len(prefix) :])
    return False, _size(path)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
