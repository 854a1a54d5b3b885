"""TCPIngress and UDPIngress to Kong stream routes."""

from __future__ import annotations

from konverge.translate.classes import selects
from konverge.translate.drafts import Backend, Contribution, Entity, Part, RouteDraft, new_service
from konverge.translate.expressions.matching import express_layer4
from konverge.translate.ingress import read_claims, service_names
from konverge.translate.objects import name_of, namespace_of, tag
from konverge.translate.problems import Object
from konverge.translate.store import Scope


def draft_tcp_ingress(value: Object, scope: Scope) -> Contribution | None:
    """Return what a TCPIngress asks for, None where it belongs to another class."""
    return _draft("TCPIngress", value, scope, "tcp", ["tcp", "tls"], "")


def draft_udp_ingress(value: Object, scope: Scope) -> Contribution | None:
    """Return what a UDPIngress asks for, None where it belongs to another class."""
    return _draft("UDPIngress", value, scope, "udp", ["udp"], ".udp")


def _draft(
    kind: str, value: Object, scope: Scope, protocol: str, protocols: list[str], suffix: str
) -> Contribution | None:
    if not selects(scope, value):
        return None
    tags = tag(kind, value)
    parts: dict[str, Part] = {}
    for index, rule in enumerate((value.get("spec") or {}).get("rules") or ()):
        reference = rule.get("backend") or {}
        port = reference.get("servicePort") or None
        backend = Backend(namespace_of(value), reference.get("serviceName") or "", port)
        name, host = service_names(backend)
        name += suffix
        if name not in parts:
            service = _new_service(kind, name, host, protocol, port)
            parts[name] = Part(name, host, service, [backend], kind, value, [], (kind, value))
        entity: Entity = {
            "name": f"{namespace_of(value)}.{name_of(value)}.{index}{suffix}",
            "protocols": list(protocols),
            "destinations": [{"port": rule.get("port") or 0}],
            "tags": tags,
        }
        if kind == "TCPIngress" and rule.get("host"):
            entity["snis"] = [rule["host"]]
        parts[name].routes.append(_finish(RouteDraft(kind, value, entity), scope))
    claims = read_claims(value) if kind == "TCPIngress" else []
    return Contribution(list(parts.values()), claims)


def _new_service(kind: str, name: str, host: str, protocol: str, port: int | None) -> Entity:
    if kind == "UDPIngress":  # these alone get neither timeouts nor retries
        return {"name": name, "host": host, "protocol": protocol, "port": port or 0}
    return new_service(name, host, protocol, 80)


def _finish(draft: RouteDraft, scope: Scope) -> RouteDraft:
    if scope.settings.on("ExpressionRoutes"):
        draft.expressive = True
        express_layer4(draft.entity)
    return draft
