"""TCPRoute, UDPRoute and TLSRoute to Kong stream routes."""

from __future__ import annotations

from konverge.translate.drafts import Contribution, Entity, RouteDraft
from konverge.translate.expressions.matching import express_layer4
from konverge.translate.gateway.backends import new_part, rule_tag
from konverge.translate.gateway.listeners import listener_ports
from konverge.translate.objects import name_of, namespace_of, tag
from konverge.translate.problems import Object
from konverge.translate.store import Scope

TCP = "TCPRoute"
UDP = "UDPRoute"
TLS = "TLSRoute"


def draft_tcp_route(route: Object, scope: Scope) -> Contribution | None:
    """Return what a TCPRoute asks for; rules after one without backendRefs are lost."""
    rules = (route.get("spec") or {}).get("rules") or ()
    if not rules:
        scope.report(TCP, route, "RouteInvalid", "A TCPRoute needs rules: it is left out.")
        return None
    contribution = Contribution()
    for index, rule in enumerate(rules):
        if not rule.get("backendRefs"):
            message = f"spec.rules[{index}] has no backendRefs: it and the rules after it are left out."
            scope.report(TCP, route, "RouteInvalid", message)
            break
        _add(contribution, TCP, route, index, rule, scope)
    return contribution


def draft_udp_route(route: Object, scope: Scope) -> Contribution | None:
    """Return what a UDPRoute asks for; None where any rule lacks backendRefs."""
    rules = (route.get("spec") or {}).get("rules") or ()
    if not rules or not all(rule.get("backendRefs") for rule in rules):
        message = "A UDPRoute needs rules, each with backendRefs: it is left out."
        scope.report(UDP, route, "RouteInvalid", message)
        return None
    contribution = Contribution()
    for index, rule in enumerate(rules):
        _add(contribution, UDP, route, index, rule, scope)
    return contribution


def draft_tls_route(route: Object, scope: Scope) -> Contribution | None:
    """Return what a TLSRoute asks for; None where it has no hostnames or no rules."""
    spec = route.get("spec") or {}
    if not spec.get("hostnames") or not spec.get("rules"):
        message = "A TLSRoute needs hostnames and rules: it is left out."
        scope.report(TLS, route, "RouteInvalid", message)
        return None
    contribution = Contribution()
    for index, rule in enumerate(spec["rules"]):
        _add(contribution, TLS, route, index, rule, scope)
    return contribution


def _add(contribution: Contribution, kind: str, route: Object, index: int, rule: Object, scope: Scope) -> None:
    name = f"{kind.lower()}.{namespace_of(route)}.{name_of(route)}.{index}"
    protocol = "udp" if kind == UDP else "tcp"
    part = new_part(kind, route, name, protocol, rule.get("backendRefs") or (), scope)
    entity: Entity = {"name": f"{name}.0", "tags": tag(kind, route, rule_tag(rule))}
    if kind == TLS:
        entity["protocols"] = ["tls_passthrough" if _passes_through(route, scope) else "tls"]
        entity["snis"] = list(route["spec"]["hostnames"])
    else:
        entity["protocols"] = [protocol]
        ports = listener_ports(route, protocol.upper(), scope)
        entity["destinations"] = [{"port": port} for port in ports]
    draft = RouteDraft(kind, route, entity)
    if scope.settings.on("ExpressionRoutes"):
        draft.expressive = True
        express_layer4(entity)
    part.routes.append(draft)
    contribution.parts.append(part)


def _passes_through(route: Object, scope: Scope) -> bool:
    """Tell whether a listener that the route is attached to, by its status, leaves TLS alone."""
    for status in (route.get("status") or {}).get("parents") or ():
        parent = status.get("parentRef") or {}
        namespace = parent.get("namespace") or namespace_of(route)
        gateway = scope.get("Gateway", namespace, parent.get("name") or "")
        for listener in ((gateway or {}).get("spec") or {}).get("listeners") or ():
            named = listener.get("name") == parent.get("sectionName")
            if named and (listener.get("tls") or {}).get("mode") == "Passthrough":
                return True
    return False
