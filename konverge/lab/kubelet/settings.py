"""What a kubelet of the lab is told at its start."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from konverge.errors import UsageError

DELAYS = "KONVERGE_LAB_DELAYS"
"""Environment variable with delays as ``name=seconds`` pairs, separated by commas."""


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds by which the lab imitates a slower node; the defaults keep tests short."""

    start: float = 0.0
    """Between the decision to start a container and its process (image unpacking, sandbox)."""
    terminate: float = 0.0
    """Between the end of the last container and the removal of the pod."""
    project: float = 2.0
    """Until a changed Secret or ConfigMap is seen in a volume, +- 25 %; a real kubelet needs up to 60 to 90."""
    backoff: float = 10.0
    """First pause of a crash loop, doubled up to 30 times itself; 10 and 300 are the real kubelet's."""

    @classmethod
    def parse(cls, text: str) -> Delays:
        """Read ``name=seconds,...``; UsageError names what is unknown."""
        delays, names = cls(), {item.name for item in fields(cls)}
        for pair in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = pair.partition("=")
            try:
                if name not in names or float(value) < 0:
                    raise ValueError
                delays = replace(delays, **{name: float(value)})
            except ValueError:
                known = ", ".join(sorted(names))
                raise UsageError(f"Delay {pair!r} is not NAME=SECONDS with NAME one of {known}.") from None
        return delays


@dataclass(frozen=True, slots=True)
class KubeletSettings:
    """One kubelet: where it listens, what it owns on disk, which nodes it plays and where pods get addresses."""

    kubeconfig: Path
    directory: Path
    """State of the kubelet: pods, logs, process ids. Kept over a restart."""
    address: str = "127.0.0.1"
    port: int = 10250
    nodes: tuple[str, ...] = ("lab-1", "lab-2", "lab-3")
    pod_cidr: str = "127.20.64.0/18"
    loopback_cidr: str = ""
    """Where the pod loopbacks are; by default beside the pod addresses (see :meth:`loopbacks`)."""
    ca_certificate: Path | None = None
    ca_key: Path | None = None
    """The lab's authority, which signs the serving certificate and every client; made here where not given."""
    schedule: bool = True
    zygote: bool = True
    delays: Delays = field(default_factory=Delays)

    def loopbacks(self) -> str:
        """Return the network of the pod loopbacks: 127.N.128.0/18 beside 127.N.64.0/18, else 127.244.128.0/18."""
        if self.loopback_cidr:
            return self.loopback_cidr
        first = ipaddress.ip_network(self.pod_cidr).network_address
        second = str(first).split(".")[1] if first.is_loopback else "244"
        return f"127.{second}.128.0/18"
