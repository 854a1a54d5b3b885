"""Choosing a target of an upstream: round-robin by weight, consistent hashing, least connections, latency."""

from __future__ import annotations

import bisect
import hashlib
import zlib
from dataclasses import dataclass, field
from typing import Any

Entity = dict[str, Any]
POINTS_PER_WEIGHT = 16
LATENCY_DECAY = 0.7


@dataclass(slots=True)
class Target:
    """One target, with what is known about it. It survives reloads of the configuration: health does too."""

    upstream: str
    name: str
    host: str
    port: int
    weight: int
    healthy: bool = True
    successes: int = 0
    http_failures: int = 0
    tcp_failures: int = 0
    timeouts: int = 0
    connections: int = 0
    latency: float = 0.0
    current: int = 0
    """Running weight of smooth round-robin."""

    def reset(self) -> None:
        """Forget the counters."""
        self.successes = self.http_failures = self.tcp_failures = self.timeouts = 0


def split_target(text: str, default_port: int = 8000) -> tuple[str, int]:
    """Return (host, port) of a target; 8000 is Kong's default port."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, int(rest[1:]) if rest.startswith(":") else default_port
    host, colon, port = text.rpartition(":")
    return (host, int(port)) if colon and port.isdigit() else (text, default_port)


@dataclass(slots=True)
class Balancer:
    """The targets of one upstream in one snapshot."""

    upstream: Entity
    targets: list[Target]
    _ring: list[tuple[int, Target]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.upstream.get("algorithm") == "consistent-hashing":
            for target in self.targets:
                for point in range(max(1, target.weight) * POINTS_PER_WEIGHT if target.weight else 0):
                    self._ring.append((_hash(f"{target.name}-{point}"), target))
            self._ring.sort(key=lambda pair: pair[0])

    @property
    def available(self) -> bool:
        """Tell whether enough of the weight is healthy (``healthchecks.threshold``)."""
        total = sum(target.weight for target in self.targets)
        good = sum(target.weight for target in self.targets if target.healthy)
        threshold = (self.upstream.get("healthchecks") or {}).get("threshold") or 0
        return total > 0 and good > 0 and good * 100 / total >= threshold

    def pick(self, hash_key: str | None, tried: set[str]) -> Target | None:
        """Return a target; those tried before only where nothing else is left."""
        if not self.available:
            return None
        usable = [target for target in self.targets if target.healthy and target.weight > 0]
        fresh = [target for target in usable if target.name not in tried] or usable
        algorithm = self.upstream.get("algorithm")
        if algorithm == "consistent-hashing" and hash_key is not None:
            return self._pick_by_hash(hash_key, fresh)
        if algorithm == "least-connections":
            return min(fresh, key=lambda target: ((target.connections + 1) / target.weight, target.name))
        if algorithm == "latency":
            return min(fresh, key=lambda target: (target.latency, target.name))
        return _pick_by_weight(fresh)

    def _pick_by_hash(self, key: str, usable: list[Target]) -> Target:
        names = {target.name for target in usable}
        start = bisect.bisect(self._ring, _hash(key), key=lambda pair: pair[0])
        for step in range(len(self._ring)):
            target = self._ring[(start + step) % len(self._ring)][1]
            if target.name in names:
                return target
        return usable[0]


def _pick_by_weight(usable: list[Target]) -> Target:
    """Smooth weighted round-robin."""
    if len(usable) == 1:
        return usable[0]
    total = 0
    best = usable[0]
    for target in usable:
        target.current += target.weight
        total += target.weight
        if target.current > best.current:
            best = target
    best.current -= total
    return best


def _hash(text: str) -> int:
    return zlib.crc32(hashlib.md5(text.encode(), usedforsecurity=False).digest())


def note_latency(target: Target, seconds: float) -> None:
    """Average the time a target takes."""
    target.latency = target.latency * LATENCY_DECAY + seconds * (1 - LATENCY_DECAY) if target.latency else seconds
