"""Cuts the proxies of a fleet into a canary and growing waves; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from konverge.model.fleet import Rollout
from konverge.model.proxy import Proxy, ProxyOutcome


@dataclass(frozen=True, slots=True)
class Wave:
    """Proxies that get a configuration together; the next wave waits for this one."""

    index: int
    name: str
    proxies: tuple[Proxy, ...]


def plan_waves(proxies: Sequence[Proxy], rollout: Rollout, first: int = 0) -> tuple[Wave, ...]:
    """Cut proxies into a canary and waves that grow by ``growth`` up to ``wave_size``; numbered from ``first``.

    Unready proxies come first: they carry no traffic, so a bad configuration harms nobody there. The canary is never
    the whole fleet, unless that is one proxy. Without a canary every wave has the full size.
    """
    ordered = sorted(proxies, key=lambda proxy: (proxy.ready, proxy.name))
    waves: list[Wave] = []
    size = min(rollout.canary, max(1, len(ordered) - 1))
    if size and ordered:
        waves.append(Wave(first, "canary" if first == 0 else f"canary-{first}", tuple(ordered[:size])))
    start = size
    while start < len(ordered):
        size = min(rollout.wave_size, math.ceil(size * rollout.growth)) if size else rollout.wave_size
        index = first + len(waves)
        waves.append(Wave(index, f"wave-{index}", tuple(ordered[start : start + size])))
        start += size
    return tuple(waves)


def may_continue(outcomes: Sequence[ProxyOutcome], rollout: Rollout) -> bool:
    """Tell whether the next wave may start: no more refusals than the budget.

    Only proxies that *refused* the configuration count; one that is down says nothing about it.
    """
    return len(find_refusals(outcomes)) <= rollout.max_failures


def find_refusals(outcomes: Sequence[ProxyOutcome]) -> list[ProxyOutcome]:
    """Return the outcomes that speak against the configuration."""
    return [o for o in outcomes if not o.ok and o.outcome.reason in HARMFUL_REASONS]


def proves_something(outcomes: Sequence[ProxyOutcome]) -> bool:
    """Tell whether a wave says anything about the configuration: somebody runs it, or refused it."""
    return any(outcome.ok for outcome in outcomes) or bool(find_refusals(outcomes))


HARMFUL_REASONS = frozenset(
    {
        "ConfigurationRefused",
        "ConfigurationTooLarge",
        "HashMismatch",
        "DataPathFailed",
        "ErrorsIncreased",
        "LatencyIncreased",
    }
)
"""Reasons that speak against the configuration, not against the proxy."""
