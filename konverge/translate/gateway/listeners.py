"""Gateways: the listeners that a route is attached to, and the certificates that listeners serve."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from konverge.translate.kinds import GATEWAY
from konverge.translate.objects import annotations_of, namespace_of
from konverge.translate.problems import Object, ObjectRef, refer
from konverge.translate.referring import is_granted
from konverge.translate.store import Scope

UNMANAGED = "konghq.com/gatewayclass-unmanaged"


def find_listeners(route: Object, scope: Scope) -> Iterator[Object]:
    """Yield the listeners of the Gateways that a route names; missing Gateways are skipped."""
    for parent in (route.get("spec") or {}).get("parentRefs") or ():
        gateway = find_gateway(parent, route, scope)
        section = parent.get("sectionName")
        for listener in ((gateway or {}).get("spec") or {}).get("listeners") or ():
            if not section or listener.get("name") == section:
                yield listener


def find_gateway(parent: Object, route: Object, scope: Scope) -> Object | None:
    """Return the Gateway of a parentRef."""
    return scope.get("Gateway", parent.get("namespace") or namespace_of(route), parent.get("name") or "")


def listener_protocols(routes: Iterable[Object], scope: Scope) -> list[str]:
    """Return http and https, as far as listeners of that protocol are found for any of the routes."""
    found = {listener.get("protocol") for route in routes for listener in find_listeners(route, scope)}
    return [name for protocol, name in (("HTTP", "http"), ("HTTPS", "https")) if protocol in found]


def listener_ports(route: Object, protocol: str, scope: Scope) -> list[int]:
    """Return the ports of the listeners of a protocol."""
    return [
        listener.get("port") or 0 for listener in find_listeners(route, scope) if listener.get("protocol") == protocol
    ]


def list_listener_certificates(scope: Scope) -> Iterator[tuple[tuple[str, str], str, ObjectRef]]:
    """Yield (Secret, server name, Gateway) for every listener that is ours and in order."""
    for _, gateway in scope.find("all", "Gateway"):
        spec = gateway.get("spec") or {}
        gateway_class = scope.get("GatewayClass", "", spec.get("gatewayClassName") or "")
        if gateway_class is None:
            continue
        controller = (gateway_class.get("spec") or {}).get("controllerName") or ""
        if controller != scope.settings.gateway_controller:
            continue
        unmanaged = UNMANAGED in annotations_of(gateway_class)
        for listener in spec.get("listeners") or ():
            if not _is_programmed(gateway, listener, unmanaged):
                continue
            secret = _certificate_of(gateway, listener, scope)
            if secret is not None:
                yield secret, listener.get("hostname") or "*", refer("Gateway", gateway)


def _is_programmed(gateway: Object, listener: Object, unmanaged: bool) -> bool:
    statuses = (gateway.get("status") or {}).get("listeners") or ()
    status = next((item for item in statuses if item.get("name") == listener.get("name")), None)
    if status is None or not unmanaged:
        return status is not None
    generation = gateway["metadata"].get("generation") or 0
    return any(
        condition.get("type") == "Programmed"
        and condition.get("status") == "True"
        and condition.get("reason") == "Programmed"
        and (condition.get("observedGeneration") or 0) == generation
        for condition in status.get("conditions") or ()
    )


def _certificate_of(gateway: Object, listener: Object, scope: Scope) -> tuple[str, str] | None:
    references = (listener.get("tls") or {}).get("certificateRefs") or ()
    if not references:
        return None
    name = listener.get("name")
    if len(references) > 1:
        message = f"Listener {name} has {len(references)} certificateRefs; only one is supported: none is used."
        scope.report("Gateway", gateway, "CertificateRefsUnsupported", message)
        return None
    reference = references[0]
    namespace = namespace_of(gateway)
    owner, secret = reference.get("namespace") or namespace, reference.get("name") or ""
    if owner != namespace and not is_granted(scope, owner, GATEWAY, "Gateway", namespace, "", "Secret", secret):
        message = f"No ReferenceGrant in {owner} lets listener {name} use Secret {owner}/{secret}."
        scope.report("Gateway", gateway, "CertificateRefsUnsupported", message)
        return None
    return (owner, secret)
