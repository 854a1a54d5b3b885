"""Addresses for Services of type LoadBalancer: what a cloud's controller does."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from konverge.errors import NotFound
from konverge.kube.resources import SERVICES, Object
from konverge.lab.controllers.reconciling import Controller, World


class LoadBalancers(Controller):
    """Gives every LoadBalancer Service one address of a range and takes it back."""

    name = "service-controller"
    # One worker: two Services must never be given the same address.
    workers = 1

    def __init__(self, world: World, addresses: str) -> None:
        super().__init__(world)
        self._range = ipaddress.ip_network(addresses)
        self._services = self.watch_own(SERVICES)

    async def reconcile(self, namespace: str, name: str) -> None:
        """Write ``status.loadBalancer`` of one Service where it is not what it has to be."""
        service = self._services.get(namespace, name)
        if service is None:
            return
        held = address_of(service)
        wanted = self._choose(service) if _wants_address(service) else None
        if held == wanted:
            return
        status = dict(service.get("status") or {})
        status["loadBalancer"] = {"ingress": [{"ip": wanted, "ipMode": "VIP"}]} if wanted else {}
        try:
            self._services.note(await self.client.replace(SERVICES, {**service, "status": status}, "status"))
        except NotFound:
            return
        if wanted:
            self.recorder.emit(service, "EnsuredLoadBalancer", "Ensured load balancer")

    def _choose(self, service: Object) -> str | None:
        taken = {address_of(item) for item in self._services.items() if item is not service}
        held, asked = address_of(service), service["spec"].get("loadBalancerIP")
        for candidate in (asked, held):
            if candidate and candidate not in taken and ipaddress.ip_address(candidate) in self._range:
                return str(candidate)
        return next((address for address in self._free() if address not in taken), None)

    def _free(self) -> Iterator[str]:
        for host in self._range.hosts():
            if int(host) != int(self._range.network_address) + 1:
                yield str(host)


def address_of(service: Object) -> str | None:
    """Return the load balancer's address, or None."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    return str(ingress[0].get("ip")) if ingress else None


def _wants_address(service: Object) -> bool:
    spec = service["spec"]
    deleted = bool(service["metadata"].get("deletionTimestamp"))
    return spec.get("type") == "LoadBalancer" and not spec.get("loadBalancerClass") and not deleted
