"""From the backends of a Kong service to the targets of its upstream."""

from __future__ import annotations

from dataclasses import dataclass

from konverge.translate.annotations import SERVICE_UPSTREAM, Annotations
from konverge.translate.classes import parameters
from konverge.translate.drafts import MISSING_PORT, Backend, Entity
from konverge.translate.objects import name_of, namespace_of
from konverge.translate.problems import Object
from konverge.translate.store import Scope

UNWEIGHTED = 100
"""What a target without a weight counts when the same address is met again."""


@dataclass(slots=True)
class Resolved:
    """A backend whose Service exists, with the annotations that count for it."""

    backend: Backend
    service: Object
    annotations: Annotations
    facade: Object | None = None

    @property
    def identity(self) -> tuple[str, str]:
        """Namespace and name of the Service."""
        return (namespace_of(self.service), name_of(self.service))


@dataclass(slots=True)
class ServicePort:
    """The port of a Service that a backend means."""

    number: int
    name: str
    target: int | str | None


def find_port(service: Object, wanted: int | str | None) -> ServicePort | None:
    """Return the port that a number, a name or nothing (the only one) means; None where there is none."""
    spec = service.get("spec") or {}
    external = spec.get("type") == "ExternalName"
    ports: list[Object] = spec.get("ports") or []
    if wanted == MISSING_PORT:
        return None
    if isinstance(wanted, int):
        if external:
            return ServicePort(wanted, "", wanted)
        found = next((port for port in ports if (port.get("port") or 0) == wanted), None)
    elif external:
        return None
    elif wanted is None:
        found = ports[0] if len(ports) == 1 else None
    else:
        found = next((port for port in ports if wanted in (port.get("name"), port.get("targetPort"))), None)
    if found is None:
        return None
    return ServicePort(found.get("port") or 0, found.get("name") or "", found.get("targetPort"))


@dataclass(slots=True)
class Endpoint:
    """One address of a backend."""

    address: str
    terminating: bool = False


def list_endpoints(resolved: Resolved, port: ServicePort, scope: Scope) -> list[Endpoint]:
    """Return the addresses of a Service port, once per protocol of the Service."""
    spec = resolved.service.get("spec") or {}
    namespace, name = resolved.identity
    protocols = ["TCP"]
    for item in spec.get("ports") or ():
        protocol = item.get("protocol") or "TCP"
        if protocol not in protocols:
            protocols.append(protocol)
    if resolved.annotations.get(SERVICE_UPSTREAM) == "true" or parameters(scope).service_upstream:
        domain = scope.settings.cluster_domain
        host = f"{name}.{namespace}.svc" + (f".{domain}" if domain else "")
        return [Endpoint(f"{host}:{port.number}")] * len(protocols)
    if spec.get("type") == "ExternalName":
        return [Endpoint(f"{spec.get('externalName') or ''}:{port.target}")] * len(protocols)
    slices = [value for _, value in scope.find("slices", namespace, name)]
    drain = scope.settings.on("DrainSupport")
    found: list[Endpoint] = []
    for protocol in protocols if len(protocols) > 1 else ("TCP",):
        found += _read_slices(slices, protocol, port.name, drain)
    return found


def _read_slices(slices: list[Object], protocol: str, port_name: str, drain: bool) -> list[Endpoint]:
    found: dict[tuple[str, bool], Endpoint] = {}
    for value in slices:
        endpoints = value.get("endpoints") or ()
        for port in value.get("ports") or ():
            number = port.get("port")
            if number is None or number < 0 or (port.get("name") or "") != port_name:
                continue
            if (port.get("protocol") or "TCP") != protocol:
                continue
            for endpoint in endpoints:
                addresses = endpoint.get("addresses")
                if not addresses:
                    continue
                terminating = _is_terminating(endpoint.get("conditions"), drain)
                if terminating is not None:
                    address = addresses[0]
                    shown = f"[{address}]:{number}" if ":" in address else f"{address}:{number}"
                    found.setdefault((shown, terminating), Endpoint(shown, terminating))
    return list(found.values())


def _is_terminating(conditions: Object | None, drain: bool) -> bool | None:
    """Return whether a usable endpoint is on its way out; None where it must not be used."""
    if not conditions:
        return False
    terminating = drain and bool(conditions.get("terminating"))
    return terminating if terminating or conditions.get("ready") is not False else None


def weigh(endpoints: list[Endpoint], weight: int | None) -> list[tuple[str, int | None]]:
    """Spread the weight of a backend over its targets; terminating ones get none."""
    share = weight
    if weight:
        active = sum(1 for endpoint in endpoints if not endpoint.terminating)
        share = max(1, weight // active) if active else weight
    return [(endpoint.address, 0 if endpoint.terminating else share) for endpoint in endpoints]


def merge_targets(found: list[tuple[str, int | None]]) -> list[Entity]:
    """Return the targets, by address descending; the weights of equal addresses add up."""
    weights: dict[str, int | None] = {}
    for address, weight in found:
        if address in weights:
            before = weights[address]
            weights[address] = (UNWEIGHTED if before is None else before) + (UNWEIGHTED if weight is None else weight)
        else:
            weights[address] = weight
    return [
        {"target": address} if weight is None else {"target": address, "weight": weight}
        for address, weight in sorted(weights.items(), key=lambda item: item[0], reverse=True)
    ]
