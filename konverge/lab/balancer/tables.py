"""What listens where and leads where: a pure function of Services and EndpointSlices.

Source: ``pkg/proxy/topology.go`` of Kubernetes: ready endpoints, and where there is none at all, those that
are terminating but still serving. Only TCP over IPv4 is balanced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from konverge.kube.resources import Object

SERVICE_NAME = "kubernetes.io/service-name"
AFFINITY_SECONDS = 10800
"""Kubernetes' default ``sessionAffinityConfig.clientIP.timeoutSeconds``."""

Address = tuple[str, int]
"""(IP, port)."""
Tier = Literal["cluster", "cloud"]


@dataclass(frozen=True, slots=True)
class Rule:
    """Where the connections to one address and port go; without ``backends`` they are refused."""

    service: str
    """``namespace/name``."""
    port: str
    """The name of the Service's port, or its number where it has none."""
    backends: tuple[Address, ...] = ()
    affinity: float | None = None
    """Seconds for which a client's address keeps its endpoint; None for no affinity."""


Table = dict[Address, Rule]


def build_table(services: Iterable[Object], slices: Iterable[Object], tier: Tier, node: str) -> Table:
    """Return the rules of one tier: ClusterIPs and NodePorts, or load balancer addresses."""
    by_service = _group_slices(slices)
    table: Table = {}
    for service in services:
        name = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
        for port in service["spec"].get("ports") or ():
            if port.get("protocol", "TCP") != "TCP":
                continue
            rule = _make_rule(name, service, port, by_service.get(name, ()))
            for address in _listen_addresses(service, port, tier, node):
                table.setdefault(address, rule)
    return table


def _group_slices(slices: Iterable[Object]) -> Mapping[str, list[Object]]:
    grouped: dict[str, list[Object]] = {}
    for item in slices:
        name = (item["metadata"].get("labels") or {}).get(SERVICE_NAME)
        if name and item.get("addressType", "IPv4") == "IPv4":
            grouped.setdefault(f"{item['metadata']['namespace']}/{name}", []).append(item)
    return grouped


def _make_rule(name: str, service: Object, port: Object, slices: Iterable[Object]) -> Rule:
    spec = service["spec"]
    affinity = None
    if spec.get("sessionAffinity") == "ClientIP":
        config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        affinity = float(config.get("timeoutSeconds", AFFINITY_SECONDS))
    backends = choose_backends(slices, port.get("name") or "")
    return Rule(name, str(port.get("name") or port["port"]), backends, affinity)


def choose_backends(slices: Iterable[Object], port_name: str) -> tuple[Address, ...]:
    """Return the ready endpoints of a port, else those that terminate but serve; sorted, each once."""
    ready: set[Address] = set()
    fallback: set[Address] = set()
    for item in slices:
        number = _port_number(item, port_name)
        if number is None:
            continue
        for endpoint in item.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            address = (endpoint["addresses"][0], number)
            if conditions.get("ready") is not False:
                ready.add(address)
            elif conditions.get("serving") and conditions.get("terminating"):
                fallback.add(address)
    return tuple(sorted(ready or fallback))


def _port_number(item: Object, name: str) -> int | None:
    for port in item.get("ports") or ():
        if (port.get("name") or "") == name and port.get("protocol", "TCP") == "TCP":
            return int(port["port"]) if port.get("port") else None
    return None


def _listen_addresses(service: Object, port: Object, tier: Tier, node: str) -> list[Address]:
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return []
    if tier == "cloud":
        ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        addresses = [entry["ip"] for entry in ingress if entry.get("ip")]
        return [(address, port["port"]) for address in addresses if spec.get("type") == "LoadBalancer"]
    cluster = spec.get("clusterIPs") or [spec.get("clusterIP")]
    listen = [(address, port["port"]) for address in cluster if address and address != "None" and ":" not in address]
    if port.get("nodePort"):
        listen.append((node, port["nodePort"]))
    return listen
