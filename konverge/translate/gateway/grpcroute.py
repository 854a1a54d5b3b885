"""GRPCRoute to Kong routes, for both routers."""

from __future__ import annotations

from konverge.translate.drafts import Contribution, Entity, Part, RouteDraft
from konverge.translate.expressions.gateway import express_grpc, grpc_priority
from konverge.translate.gateway.backends import NO_BACKEND, new_part, rule_tag
from konverge.translate.gateway.listeners import find_gateway, find_listeners
from konverge.translate.objects import created, name_of, namespace_of, tag
from konverge.translate.problems import Object
from konverge.translate.store import Scope

KIND = "GRPCRoute"
ANY = ".+"


def draft_grpc_route(route: Object, scope: Scope) -> Contribution | None:
    """Return what a GRPCRoute asks for."""
    rules = (route.get("spec") or {}).get("rules") or ()
    if not rules:
        scope.report(KIND, route, "RouteInvalid", "A GRPCRoute needs rules: it is left out.")
        return None
    for index, rule in enumerate(rules):
        if rule.get("filters"):
            scope.report(KIND, route, "FieldIgnored", f"spec.rules[{index}].filters is ignored.")
    if scope.settings.on("ExpressionRoutes"):
        return _draft_expressive(route, rules, scope)
    contribution = Contribution()
    hosts = _find_hosts(route, scope)
    tags = _tag(route, rules)
    protocol = _service_protocol(route, scope)
    for index, rule in enumerate(rules):
        name = f"grpcroute.{namespace_of(route)}.{name_of(route)}.{index}"
        references = rule.get("backendRefs") or ()
        part = new_part(KIND, route, name, protocol, references, scope, has_parent=False)
        for number, match in enumerate(rule.get("matches") or (None,)):
            entity = _new_route(f"{name}.{number}", hosts, tags, match)
            part.routes.append(RouteDraft(KIND, route, entity))
        contribution.parts.append(part)
    return contribution


def _tag(route: Object, rules: list[Object]) -> list[str]:
    names = [{"name": (rule.get("name") or "").strip()} for rule in rules]
    return tag(KIND, route, [item for rule in names for item in rule_tag(rule)])


def _service_protocol(route: Object, scope: Scope) -> str:
    protocols = {listener.get("protocol") for listener in find_listeners(route, scope)}
    return "grpc" if "HTTP" in protocols else "grpcs"


def _find_hosts(route: Object, scope: Scope) -> list[str]:
    """Return the host names of the route, else those of its Gateways' listeners."""
    spec = route.get("spec") or {}
    if spec.get("hostnames"):
        return list(spec["hostnames"])
    hosts: dict[str, None] = {}
    for parent in spec.get("parentRefs") or ():
        if (parent.get("kind") or "Gateway") != "Gateway":
            continue
        gateway = find_gateway(parent, route, scope)
        if gateway is None:
            return []
        for listener in (gateway.get("spec") or {}).get("listeners") or ():
            if listener.get("hostname"):
                hosts[listener["hostname"]] = None
    return list(hosts)


def _new_route(name: str, hosts: list[str], tags: list[str], match: Object | None) -> Entity:
    entity: Entity = {"name": name, "hosts": hosts, "protocols": ["grpc", "grpcs"], "tags": tags}
    if match is None:
        if not hosts:
            entity["paths"] = ["/"]
        return entity
    method = match.get("method")
    if method is not None:
        missing = ANY if method.get("type") == "RegularExpression" else ""
        entity["paths"] = [f"~/{method.get('service') or ANY}/{method.get('method') or missing}"]
    headers: dict[str, list[str]] = {}
    for header in match.get("headers") or ():
        headers.setdefault(header.get("name") or "", []).append(header.get("value") or "")
    entity["headers"] = headers
    return entity


def _draft_expressive(route: Object, rules: list[Object], scope: Scope) -> Contribution:
    """Split by host name, rule and match; every host name has its own Kong service."""
    parts: dict[str, Part] = {}
    tags = _tag(route, rules)
    protocol = _service_protocol(route, scope)
    listeners = {listener.get("protocol") for listener in find_listeners(route, scope)}
    protocols = [name for source, name in (("HTTP", "grpc"), ("HTTPS", "grpcs")) if source in listeners]
    age = (created(route), namespace_of(route), name_of(route))
    for position, host in enumerate((route.get("spec") or {}).get("hostnames") or ("",)):
        shown = host.replace("*", "_") or "_"
        for index, rule in enumerate(rules):
            name = f"grpcroute.{namespace_of(route)}.{name_of(route)}.{shown}.{index}"
            for number, match in enumerate(rule.get("matches") or ({},)):
                if name in parts:
                    part = parts[name]
                    part.plugins += [NO_BACKEND] if part.plugins else []
                else:
                    references = rule.get("backendRefs") or ()
                    part = parts[name] = new_part(KIND, route, name, protocol, references, scope)
                entity: Entity = {"name": f"{name}.{number}", "preserve_host": True, "tags": tags}
                if protocols:
                    entity["protocols"] = list(protocols)
                express_grpc(entity, route, host, match)
                tie = (grpc_priority(host, match), (*age, index, number, position))
                part.routes.append(RouteDraft(KIND, route, entity, expressive=True, tie=tie))
    return Contribution(list(parts.values()))
