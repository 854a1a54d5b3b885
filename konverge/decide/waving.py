"""Cuts the proxies of a fleet into a canary and waves; pure."""

from __future__ import annotations

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


def plan_waves(proxies: Sequence[Proxy], rollout: Rollout) -> tuple[Wave, ...]:
    """Cut proxies, sorted by name, into a canary and waves of ``wave_size``.

    Unready proxies are in the canary first: they carry no traffic, so a bad configuration harms nobody there.
    """
    ordered = sorted(proxies, key=lambda proxy: (proxy.ready, proxy.name))
    waves: list[Wave] = []
    canary = ordered[: rollout.canary]
    if canary:
        waves.append(Wave(0, "canary", tuple(canary)))
    rest = ordered[len(canary) :]
    for start in range(0, len(rest), rollout.wave_size):
        index = len(waves)
        waves.append(Wave(index, f"wave-{index}", tuple(rest[start : start + rollout.wave_size])))
    return tuple(waves)


def may_continue(outcomes: Sequence[ProxyOutcome], rollout: Rollout) -> bool:
    """Tell whether the next wave may start: no more refusals than the budget, and not every proxy failed.

    Only proxies that *refused* the configuration count; one that is down says nothing about it.
    """
    refused = sum(1 for outcome in outcomes if not outcome.ok and outcome.outcome.reason in HARMFUL_REASONS)
    return refused <= rollout.max_failures


HARMFUL_REASONS = frozenset({"ConfigurationRefused", "ConfigurationTooLarge", "HashMismatch", "DataPathFailed"})
"""Reasons that speak against the configuration, not against the proxy."""
