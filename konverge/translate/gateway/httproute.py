"""HTTPRoute to Kong services and routes, for both routers.

Rules with the same backendRefs share a Kong service; within it, matches that differ in nothing but the path share
a Kong route.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from konverge.translate.drafts import Contribution, Entity, Part, RouteDraft
from konverge.translate.expressions.gateway import express_http, http_priority
from konverge.translate.gateway.backends import new_part, rule_tag
from konverge.translate.gateway.durations import parse_duration
from konverge.translate.gateway.filters import (
    FilterError,
    apply_filters,
    capture_paths,
    has_redirect,
    rewrites_prefix,
)
from konverge.translate.gateway.grouping import (
    Rule,
    backends_key,
    combined_name,
    filters_key,
    list_rules,
    match_key,
    single_name,
)
from konverge.translate.gateway.listeners import listener_protocols
from konverge.translate.objects import created, name_of, namespace_of, tag
from konverge.translate.problems import Object
from konverge.translate.store import Scope

KIND = "HTTPRoute"
DEFAULT_BACKEND_TIMEOUT = 60_000


def draft_http_routes(routes: Sequence[Object], scope: Scope, combined: bool) -> Contribution:
    """Return what HTTPRoutes ask for: one route, or with ``combined`` all routes of one namespace."""
    groups: dict[str, list[Rule]] = {}
    for route in routes:
        if not _is_valid(route, scope):
            continue
        for rule in list_rules(route):
            groups.setdefault(backends_key(rule), []).append(rule)
    _report_ignored(routes, scope)
    contribution = Contribution()
    for rules in groups.values():
        name = combined_name(rules) if combined else single_name(rules)
        rules.sort(key=lambda rule: rule.order)
        try:
            contribution.parts.append(_draft_service(name, rules, scope))
        except FilterError as error:
            for route in {id(rule.route): rule.route for rule in rules}.values():
                message = f"HTTPRoute can't be routed: {error}: Kong service {name} is left out."
                scope.report(KIND, route, "RouteUnsupported", message)
    return contribution


def _is_valid(route: Object, scope: Scope) -> bool:
    rules = (route.get("spec") or {}).get("rules") or ()
    if not rules:
        scope.report(KIND, route, "RouteInvalid", "An HTTPRoute needs rules: it is left out.")
        return False
    if scope.settings.on("ExpressionRoutes"):
        return True
    if any(match.get("queryParams") for rule in rules for match in rule.get("matches") or ()):
        message = "Matching query parameters needs the feature ExpressionRoutes: the HTTPRoute is left out."
        scope.report(KIND, route, "RouteUnsupported", message)
        return False
    return True


def _report_ignored(routes: Sequence[Object], scope: Scope) -> None:
    """Tell about fields that have no counterpart in Kong."""
    for route in routes:
        for rule in list_rules(route):
            if (rule.value.get("timeouts") or {}).get("request"):
                message = f"spec.rules[{rule.index}].timeouts.request is ignored; backendRequest is not."
                scope.report(KIND, route, "FieldIgnored", message)
            if any(reference.get("filters") for reference in rule.value.get("backendRefs") or ()):
                message = f"spec.rules[{rule.index}]: filters of backendRefs are ignored; those of the rule are not."
                scope.report(KIND, route, "FieldIgnored", message)


def _draft_service(name: str, rules: list[Rule], scope: Scope) -> Part:
    first = rules[0]
    part = new_part(KIND, first.route, name, "http", first.value.get("backendRefs") or (), scope)
    for rule in rules:
        timeout = parse_duration((rule.value.get("timeouts") or {}).get("backendRequest"))
        if timeout is not None and timeout != DEFAULT_BACKEND_TIMEOUT:
            part.entity.update(connect_timeout=timeout, read_timeout=timeout, write_timeout=timeout)
    protocols = listener_protocols([rule.route for rule in rules], scope)
    expressive = scope.settings.on("ExpressionRoutes")
    drafts = _express(rules, scope) if expressive else _draft_routes(rules, scope)
    for draft in drafts:
        if protocols:
            draft.entity["protocols"] = list(protocols)
        part.routes.append(draft)
    return part


def _draft_routes(rules: list[Rule], scope: Scope) -> list[RouteDraft]:
    drafts: list[RouteDraft] = []
    by_filters: dict[str, list[Rule]] = {}
    for rule in rules:
        by_filters.setdefault(filters_key(rule), []).append(rule)
    for group in by_filters.values():
        pools: dict[str, _Pool] = {}
        for rule in group:
            matches = rule.value.get("matches") or ()
            if not matches:
                drafts.append(_draft_without_match(rule))
            for number, match in enumerate(matches):
                pool = pools.setdefault(match_key(rule, match), _Pool(rule, number, match))
                pool.matches.append((rule, match))
        for pool in pools.values():
            drafts += _draft_pool(pool, scope)
    return drafts


def _draft_without_match(rule: Rule) -> RouteDraft:
    entity: Entity = {
        "name": f"httproute.{namespace_of(rule.route)}.{name_of(rule.route)}.{rule.index}.0",
        "hosts": list((rule.route.get("spec") or {}).get("hostnames") or ()),
        "preserve_host": True,
        "tags": tag(KIND, rule.route),
    }
    return RouteDraft(KIND, rule.route, entity)


@dataclass(slots=True)
class _Pool:
    """Matches that become one Kong route, and the first of them."""

    rule: Rule
    number: int
    match: Object
    matches: list[tuple[Rule, Object]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"httproute.{namespace_of(self.rule.route)}.{name_of(self.rule.route)}.{self.rule.index}.{self.number}"


def _draft_pool(pool: _Pool, scope: Scope) -> list[RouteDraft]:
    route = pool.rule.route
    filters = pool.rule.value.get("filters") or ()
    named = [item for rule, _ in pool.matches for item in rule_tag(rule.value)]
    entity: Entity = {
        "name": pool.name,
        "hosts": list((route.get("spec") or {}).get("hostnames") or ()),
        "preserve_host": True,
        "strip_path": False,
        "headers": _read_headers(pool.match.get("headers") or ()),
        "tags": tag(KIND, route, named),
    }
    if pool.match.get("method"):
        entity["methods"] = [pool.match["method"]]
    if has_redirect(filters):
        return _draft_redirects(pool, entity, filters, scope)
    use_redirect = scope.settings.on("SupportRedirectPlugin")
    filtered = apply_filters(filters, _path_value(pool.match), entity["tags"], use_redirect)
    paths: list[str] = []
    for _, match in pool.matches:
        if filtered.replaces_prefix:
            value = _path_value(match) if filtered.prefix is None else filtered.prefix
            paths += capture_paths(value)
        else:
            paths += convert_http_path(match.get("path"))
    entity["paths"] = list(dict.fromkeys(paths)) if filtered.replaces_prefix else paths
    return [RouteDraft(KIND, route, entity, filtered.plugins, filtered.references)]


def _draft_redirects(pool: _Pool, entity: Entity, filters: Sequence[Object], scope: Scope) -> list[RouteDraft]:
    """Return one Kong route per match, all of the same name; later ones carry what the earlier ones have."""
    drafts = []
    paths: list[str] = []
    plugins: list[Entity] = []
    references: list[str] = []
    use_redirect = scope.settings.on("SupportRedirectPlugin")
    for _, match in pool.matches:
        filtered = apply_filters(filters, _path_value(match), entity["tags"], use_redirect)
        paths = [*paths, *convert_http_path(match.get("path"))]
        if filtered.replaces_prefix:
            paths = capture_paths(_path_value(match) if filtered.prefix is None else filtered.prefix)
        plugins = [*plugins, *filtered.plugins]
        references = [*references, *filtered.references]
        drafts.append(RouteDraft(KIND, pool.rule.route, {**entity, "paths": paths}, plugins, references))
    return drafts


def _path_value(match: Object) -> str:
    return (match.get("path") or {}).get("value") or ""


def convert_http_path(path: Object | None) -> list[str]:
    """Return the Kong paths of a path match; none where there is no path."""
    if path is None:
        return []
    kind, value = path.get("type") or "PathPrefix", path.get("value") or "/"
    if kind == "Exact":
        return [f"~{value}$"]
    if kind == "PathPrefix":
        return [f"~{value}$", value if value.endswith("/") else f"{value}/"]
    if kind == "RegularExpression":
        return [f"~{value}"]
    raise FilterError(f"path match {kind} unsupported")


def _read_headers(headers: Iterable[Object]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for header in headers:
        name, value = header.get("name") or "", header.get("value") or ""
        if name in found:
            raise FilterError(f"header {name} is matched more than once")
        found[name] = [f"~*{value}" if header.get("type") == "RegularExpression" else value]
    return found


def _express(rules: list[Rule], scope: Scope) -> list[RouteDraft]:
    drafts = []
    use_redirect = scope.settings.on("SupportRedirectPlugin")
    for rule in rules:
        filters = rule.value.get("filters") or ()
        replaces = rewrites_prefix(filters)
        tags = tag(KIND, rule.route, rule_tag(rule.value))
        for position, host in enumerate((rule.route.get("spec") or {}).get("hostnames") or ("",)):
            shown = host.replace("*", "_") or "_"
            for number, match in enumerate(rule.value.get("matches") or ({},)):
                prefix = f"httproute.{namespace_of(rule.route)}.{name_of(rule.route)}.{shown}"
                entity: Entity = {
                    "name": f"{prefix}.{rule.index}.{number}",
                    "preserve_host": True,
                    "strip_path": False,
                    "tags": tags,
                }
                express_http(entity, rule.route, host, match, replaces)
                filtered = apply_filters(filters, _path_value(match), tags, use_redirect)
                age: tuple[Any, ...] = (created(rule.route), namespace_of(rule.route), name_of(rule.route))
                tie = (http_priority(host, match), (*age, rule.index, number, position))
                drafts.append(RouteDraft(KIND, rule.route, entity, filtered.plugins, filtered.references, True, tie))
    return drafts
