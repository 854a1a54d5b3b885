"""Which plugins run for a request, in which order, with which configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from konverge.lab.kong.plugins.authenticating import Acl, BasicAuth, KeyAuth
from konverge.lab.kong.plugins.base import Plugin
from konverge.lab.kong.plugins.limiting import IpRestriction, RateLimiting, RequestSizeLimiting
from konverge.lab.kong.plugins.transforming import (
    CorrelationId,
    Cors,
    Redirect,
    RequestTermination,
    RequestTransformer,
    ResponseTransformer,
)
from konverge.lab.kong.schema.registry import PRIORITIES
from konverge.lab.kong.state import Snapshot

ACTING: dict[str, Plugin] = {
    plugin.name: plugin
    for plugin in (
        KeyAuth(),
        BasicAuth(),
        Acl(),
        RateLimiting(),
        RequestSizeLimiting(),
        IpRestriction(),
        Cors(),
        RequestTransformer(),
        ResponseTransformer(),
        CorrelationId(),
        RequestTermination(),
        Redirect(),
    )
}
PASSIVE = "prometheus"
"""Acts in the log phase only."""

Key = tuple[str | None, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Step:
    """One plugin with its configuration."""

    name: str
    priority: int
    config: dict[str, Any]
    plugin_id: str
    plugin: Plugin | None


@dataclass(slots=True)
class PluginTable:
    """The plugins of one snapshot by what they are attached to: (route, service, consumer)."""

    by_name: dict[str, dict[Key, Step]] = field(default_factory=dict)
    protocols: dict[str, frozenset[str]] = field(default_factory=dict)
    _chains: dict[Key, tuple[Step, ...]] = field(default_factory=dict)

    @classmethod
    def build(cls, snapshot: Snapshot) -> PluginTable:
        """Compile the enabled plugins of a snapshot."""
        table = cls()
        for plugin in snapshot.list("plugins"):
            name = plugin["name"]
            if not plugin["enabled"] or (name not in ACTING and name != PASSIVE):
                continue
            key: Key = (_id(plugin, "route"), _id(plugin, "service"), _id(plugin, "consumer"))
            step = Step(name, PRIORITIES.get(name, 0), plugin["config"], plugin["id"], ACTING.get(name))
            table.by_name.setdefault(name, {}).setdefault(key, step)
        return table

    def chain(self, route: str | None, service: str | None, consumer: str | None) -> tuple[Step, ...]:
        """Return the plugins for a request, highest priority first."""
        key = (route, service, consumer)
        found = self._chains.get(key)
        if found is None:
            steps = [
                step for steps in self.by_name.values() if (step := _most_specific(steps, route, service, consumer))
            ]
            found = self._chains[key] = tuple(sorted(steps, key=lambda step: -step.priority))
        return found


def _most_specific(
    steps: dict[Key, Step], route: str | None, service: str | None, consumer: str | None
) -> Step | None:
    """Return the configuration that wins (``kong/runloop/plugins_iterator.lua``)."""
    for key in (
        (route, service, consumer),
        (route, None, consumer),
        (None, service, consumer),
        (route, service, None),
        (None, None, consumer),
        (route, None, None),
        (None, service, None),
        (None, None, None),
    ):
        found = steps.get(key)
        if found is not None:
            return found
    return None


def _id(plugin: dict[str, Any], name: str) -> str | None:
    reference = plugin.get(name)
    return reference["id"] if reference else None
