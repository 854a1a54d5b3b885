"""Finds where a Service of a lab can be reached from this machine."""

from __future__ import annotations

from typing import Any

import orjson

from konverge.errors import NotFound
from konverge.kube.client import KubeClient
from konverge.lab.balancer.publishing import ADDRESSES
from konverge.lab.supervisor.waiting import load_balancer_ip, wait_for_address


async def find_address(
    client: KubeClient,
    service: str,
    namespace: str = "default",
    port: int | str | None = None,
    timeout: float = 30.0,
) -> tuple[str, int]:
    """Return a Service's load balancer address, else its ClusterIP, with the port that is really bound.

    ``port`` is a number or a name of the Service's ports, the first one by default.
    """
    found = await wait_for_address(client, namespace, service, timeout)
    address = load_balancer_ip(found) or found["spec"]["clusterIP"]
    number = _port_of(found, port)
    moved = (found["metadata"].get("annotations") or {}).get(ADDRESSES)
    bound = orjson.loads(moved).get(f"{address}:{number}") if moved else None
    if bound:
        host, _, text = str(bound).rpartition(":")
        return host, int(text)
    return address, number


def _port_of(service: dict[str, Any], wanted: int | str | None) -> int:
    ports = service["spec"].get("ports") or []
    for port in ports:
        if wanted is None or wanted in (port["port"], port.get("name")):
            return int(port["port"])
    name = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
    raise NotFound(f"Service {name} has no port {wanted}.", reason="NoSuchPort", hint="howto/lab.md#addresses")
