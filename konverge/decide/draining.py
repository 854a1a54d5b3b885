"""Judges whether a proxy still serves: new connections, and requests that are under way; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PROBE_RATE = 1.5
"""New connections per second that are no traffic: two kubelet probes every 10 s, the sidecar's calls to the
Admin API every 3 s, and room for reconnects of our own reading."""
OWN_REQUESTS = 1
"""Requests under way that are ours: the one that reads the numbers."""


@dataclass(frozen=True, slots=True)
class ConnectionSample:
    """What ``GET /status`` said at one moment; ``at`` is in seconds of a monotonic clock.

    ``writing`` counts requests under way, long-lived ones included; idle kept connections are not in it
    (nginx: ``connections_writing`` against ``connections_waiting``).
    """

    at: float
    accepted: int
    writing: int


def recent(samples: Sequence[ConnectionSample], window: float) -> list[ConnectionSample]:
    """Return the samples of the last ``window`` seconds."""
    return [sample for sample in samples if samples[-1].at - sample.at <= window]


def is_quiet(samples: Sequence[ConnectionSample], window: float, allowed_rate: float = PROBE_RATE) -> bool:
    """Tell whether over the last ``window`` seconds no more connections came than probes explain.

    False while the samples do not span the window yet. A counter that went back means a restart: not quiet.
    """
    if not samples:
        return False
    inside = recent(samples, window)
    first, last = inside[0], inside[-1]
    span = last.at - first.at
    if span < window * 0.8 or last.accepted < first.accepted:
        return False
    return (last.accepted - first.accepted) <= allowed_rate * span


def is_drained(samples: Sequence[ConnectionSample], window: float) -> bool:
    """Tell whether no traffic comes and no request ran through the whole window.

    Requests on kept connections come and go, so the smallest number seen counts: a WebSocket or a long
    answer is in every sample.
    """
    return is_quiet(samples, window) and min(s.writing for s in recent(samples, window)) <= OWN_REQUESTS
