"""Which loopback addresses belong to which lab: one 127.N.0.0/16 each, so that labs run side by side.

The number is claimed by a locked file in the state directory and by an abstract socket, which the kernel
gives back even after SIGKILL and which other state directories on the machine see too.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from konverge.errors import CheckRefused

NUMBERS = range(20, 251)
API_PORT = 6443
KUBELET_PORT = 10250


@dataclass(frozen=True, slots=True)
class LabNetwork:
    """The addresses of one lab. ``private`` means: inside a network namespace with pod addresses of a cluster."""

    number: int = 20
    private: bool = False

    @property
    def node_address(self) -> str:
        """Where the API server, the kubelet and NodePorts listen."""
        return "10.244.255.1" if self.private else f"127.{self.number}.0.1"

    @property
    def pod_cidr(self) -> str:
        """Pod IPs."""
        return "10.244.0.0/18" if self.private else f"127.{self.number}.64.0/18"

    @property
    def loopback_cidr(self) -> str:
        """The addresses that play 127.0.0.1 inside pods."""
        return f"127.{244 if self.private else self.number}.128.0/18"

    @property
    def service_cidr(self) -> str:
        """ClusterIPs."""
        return "10.96.0.0/16" if self.private else f"127.{self.number}.16.0/20"

    @property
    def load_balancer_cidr(self) -> str:
        """Addresses of Services of type LoadBalancer."""
        return "10.244.254.0/24" if self.private else f"127.{self.number}.8.0/24"

    @property
    def cidr(self) -> str:
        """All addresses of a lab on loopback."""
        return f"127.{self.number}.0.0/16"

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://{self.node_address}:{API_PORT}"


class Claim:
    """A number held by this process until ``release`` or its end."""

    def __init__(self, number: int, lock: int, marker: socket.socket) -> None:
        self.number = number
        self._lock = lock
        self._marker = marker

    def release(self) -> None:
        """Give the number back."""
        self._marker.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def claim_number(directory: Path, numbers: Iterable[int] = NUMBERS) -> Claim:
    """Claim the first free number; CheckRefused (NoFreeNetwork) where all are taken."""
    directory.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        claim = _try_number(directory, number)
        if claim is not None:
            return claim
    raise CheckRefused(
        f"No network 127.N.0.0/16 is free for a lab: port {API_PORT} or {KUBELET_PORT} is taken on each.",
        reason="NoFreeNetwork",
        hint="howto/lab.md#no-free-network",
    )


def _try_number(directory: Path, number: int) -> Claim | None:
    lock = os.open(directory / f"{number}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    marker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        marker.bind(f"\0konverge-lab-127.{number}")
        _require_free(f"127.{number}.0.1", (API_PORT, KUBELET_PORT))
    except OSError:
        marker.close()
        os.close(lock)
        return None
    return Claim(number, lock, marker)


def _require_free(address: str, ports: Iterable[int]) -> None:
    """Raise OSError where somebody listens on one of the ports."""
    for port in ports:
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
