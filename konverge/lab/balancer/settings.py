"""Settings of the balancer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SYNC_SECONDS = 1.0
"""kube-proxy's default ``minSyncPeriod``."""
CLOUD_SECONDS = (2.0, 3.0)
"""How much later than kube-proxy a cloud's load balancer notices, at the default sync delay."""


@dataclass(frozen=True, slots=True)
class BalancerSettings:
    """Delays are in seconds; ``sync_delay`` 0 makes every change visible at once in both tiers."""

    node_address: str = "127.20.0.1"
    sync_delay: float = SYNC_SECONDS
    choice: Literal["random", "round-robin"] = "random"
    http_host: str = "127.20.0.1"
    http_port: int = 10249
    """kube-proxy's metrics port."""

    def cluster_delay(self) -> tuple[float, float]:
        """Return the shortest and the longest time until a change acts on ClusterIPs and NodePorts.

        kube-proxy syncs at once after a quiet time and at most every ``minSyncPeriod`` in a busy one;
        the lab takes half of it as the least, so that no test depends on a lucky moment.
        """
        return self.sync_delay / 2, self.sync_delay

    def cloud_delay(self) -> tuple[float, float]:
        """Return the same for load balancer addresses; scales with ``sync_delay``."""
        least, most = self.cluster_delay()
        scale = self.sync_delay / SYNC_SECONDS
        return least + CLOUD_SECONDS[0] * scale, most + CLOUD_SECONDS[1] * scale
