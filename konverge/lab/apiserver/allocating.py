"""Addresses of services and node ports: handed out once, and free again when their service goes."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network, ip_address

from konverge.lab.apiserver.statuses import internal
from konverge.lab.apiserver.store import Event, Object, Store

NODE_PORTS = range(30000, 32768)


class Allocator:
    """Knows what the services in the store hold."""

    def __init__(self, network: IPv4Network, store: Store, seed: int = 7) -> None:
        self._network = network
        self._random = random.Random(seed)
        self._addresses: set[str] = set()
        self._ports: set[int] = set()
        self._next = int(network.network_address) + 2
        for entry in store.collection("services").entries():
            self.take(entry.object["spec"])
        store.listeners.append(self._watch)

    @property
    def first(self) -> str:
        """The address of the service ``kubernetes``."""
        return str(self._network.network_address + 1)

    def covers(self, address: str) -> bool:
        """Whether an address lies in the range."""
        try:
            return ip_address(address) in self._network
        except ValueError:
            return False

    def is_free(self, address: str) -> bool:
        """Whether an address lies in the range and nobody holds it."""
        return self.covers(address) and address not in self._addresses

    def pick_address(self) -> str:
        """Return a free address, in ascending order; it is held once the service is committed."""
        first, last = int(self._network.network_address) + 2, int(self._network.broadcast_address)
        for number in [*range(self._next, last), *range(first, self._next)]:
            address = str(IPv4Address(number))
            if address not in self._addresses:
                self._next = number + 1
                return address
        raise internal("failed to allocate a serviceIP: range is full")

    def pick_node_port(self, besides: set[int]) -> int:
        """Return a free node port."""
        free = [port for port in NODE_PORTS if port not in self._ports and port not in besides]
        if not free:
            raise internal("failed to allocate a nodePort: range is full")
        return self._random.choice(free)

    def take(self, spec: Object) -> None:
        """Hold what a service names."""
        if spec.get("clusterIP") not in (None, "", "None"):
            self._addresses.add(spec["clusterIP"])
        self._ports |= {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}

    def _watch(self, storage: str, event: Event) -> None:
        if storage != "services" or event.previous is None:
            return
        spec = event.previous.object["spec"]
        self._addresses.discard(spec.get("clusterIP") or "")
        self._ports -= {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}
        if event.type != "DELETED":
            self.take(event.entry.object["spec"])
