"""Addresses of pods: which number a pod has, and the pod IP and pod loopback that follow from it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from konverge.errors import Busy

PER_BLOCK = 250
"""Pods in one /24: host numbers 2 to 251."""


@dataclass(frozen=True, slots=True)
class PodAddress:
    """The number of a pod and its two addresses."""

    number: int
    ip: str
    loopback: str


class AddressPool:
    """Hands out addresses in turn, so that a freed one rests as long as possible (as host-local IPAM does)."""

    def __init__(self, pod_cidr: str, loopback_cidr: str) -> None:
        self._pods = ipaddress.ip_network(pod_cidr)
        self._loopbacks = ipaddress.ip_network(loopback_cidr)
        blocks = min(self._pods.num_addresses, self._loopbacks.num_addresses) // 256
        self._capacity = blocks * PER_BLOCK
        self._taken: set[int] = set()
        self._next = 0

    def acquire(self, wanted: str = "") -> PodAddress:
        """Return ``wanted`` where it is one of ours and free, else the next free address; Busy when none is."""
        number = self._number_of(wanted)
        if number is None or number in self._taken:
            number = self._next_free()
        self._taken.add(number)
        return self._address(number)

    def release(self, address: PodAddress) -> None:
        """Give an address back."""
        self._taken.discard(address.number)

    def _next_free(self) -> int:
        for step in range(self._capacity):
            number = (self._next + step) % self._capacity
            if number not in self._taken:
                self._next = number + 1
                return number
        raise Busy(f"All {self._capacity} pod addresses of {self._pods} are in use.", reason="NoPodAddress")

    def _address(self, number: int) -> PodAddress:
        offset = number // PER_BLOCK * 256 + number % PER_BLOCK + 2
        return PodAddress(number, str(self._pods[offset]), str(self._loopbacks[offset]))

    def _number_of(self, ip: str) -> int | None:
        try:
            offset = int(ipaddress.ip_address(ip)) - int(self._pods.network_address)
        except ValueError:
            return None
        block, host = divmod(offset, 256)
        number = block * PER_BLOCK + host - 2
        return number if 2 <= host < PER_BLOCK + 2 and 0 <= number < self._capacity else None
