"""Finds the proxies of a fleet through the EndpointSlices of its headless admin Service.

Unready proxies are found too (``publishNotReadyAddresses``): they must be configured to become ready. One
read serves any number of proxies.
"""

from __future__ import annotations

from collections.abc import Iterable

from konverge.kube.client import KubeClient
from konverge.kube.resources import ENDPOINT_SLICES, Object
from konverge.model.fleet import Fleet
from konverge.model.proxy import ADMIN_PORT, Proxy
from konverge.pki.authority import name_server

ADMIN_PORT_NAMES = ("kong-admin-tls", "admin-tls")
"""Port names under which the Admin API is found; the same as KIC's gateway discovery looks for."""


async def discover_proxies(kube: KubeClient, fleet: Fleet) -> list[Proxy]:
    """Read the proxies of a fleet, terminating ones left out, sorted by name."""
    slices = await kube.list_all(
        ENDPOINT_SLICES, fleet.namespace, labels=f"kubernetes.io/service-name={fleet.admin_service}"
    )
    return read_proxies(fleet, slices)


def read_proxies(fleet: Fleet, slices: Iterable[Object]) -> list[Proxy]:
    """Turn EndpointSlices into proxies; an endpoint that is no Pod is not ours."""
    found: dict[str, Proxy] = {}
    for piece in slices:
        port = _admin_port(piece)
        for endpoint in piece.get("endpoints") or ():
            proxy = _read_endpoint(fleet, endpoint, port)
            if proxy is not None and not proxy.terminating:
                found[proxy.name] = proxy
    return sorted(found.values(), key=lambda proxy: proxy.name)


def _admin_port(piece: Object) -> int:
    named = {port.get("name"): port.get("port") for port in piece.get("ports") or ()}
    return next((int(named[name]) for name in ADMIN_PORT_NAMES if named.get(name)), ADMIN_PORT)


def _read_endpoint(fleet: Fleet, endpoint: Object, port: int) -> Proxy | None:
    target = endpoint.get("targetRef") or {}
    addresses = endpoint.get("addresses") or ()
    if target.get("kind") != "Pod" or not addresses:
        return None
    conditions = endpoint.get("conditions") or {}
    return Proxy(
        name=target["name"],
        namespace=fleet.namespace,
        ip=addresses[0],
        uid=target.get("uid", ""),
        node=endpoint.get("nodeName") or "",
        server_name=name_server(target["name"], fleet.admin_service, fleet.namespace),
        # With publishNotReadyAddresses `ready` is always true; `serving` is the pod's own readiness.
        ready=bool(conditions.get("serving", conditions.get("ready", True))),
        terminating=bool(conditions.get("terminating", False)),
        admin_port=port,
    )
