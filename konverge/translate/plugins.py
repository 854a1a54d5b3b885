"""Plugins from KongPlugin and KongClusterPlugin: which entities they work on, and the entries that result.

A plugin is keyed by (namespace, name) of the reference, over the whole cluster. The relations of a key are the
services, routes, consumers and consumer groups whose objects refer to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from konverge.translate.classes import selects
from konverge.translate.defaults import fill_plugin
from konverge.translate.drafts import Entity
from konverge.translate.entities import Entry, drop_empty
from konverge.translate.objects import tag
from konverge.translate.plugin_config import ConfigError, build_config
from konverge.translate.problems import Object, ObjectRef
from konverge.translate.referring import Reference, Target
from konverge.translate.store import Scope

PluginKey = tuple[str, str]
Combination = tuple[Target, ...]
"""At most one target of each kind; empty for a global plugin."""

GLOBAL_LABEL = "global"
SHORT_HASH = 9
"""Hexadecimal digits of the relation's hash in an instance name."""

_KEY_ORDER = ("service", "route", "consumer", "consumer_group")
_HASH_WORDS = {"service": "service", "route": "route", "consumer": "consumer", "consumer_group": "group"}


@dataclass(slots=True)
class PluginBase:
    """The part of a plugin's entries that does not depend on what it works on."""

    fields: Entity
    instance_name: str | None = None


def combine(references: Iterable[Reference]) -> list[Combination]:
    """Return the combinations of targets for which a plugin gets an entry each."""
    targets: dict[str, list[Target]] = {kind: [] for kind in _KEY_ORDER}
    for reference in references:
        targets[reference.target[0]].append(reference.target)
    places = targets["service"] + targets["route"]
    callers = targets["consumer"] or targets["consumer_group"]
    if callers and places:
        return [(place, caller) for caller in callers for place in places]
    return [(target,) for target in callers or places]


def find_plugin(scope: Scope, key: PluginKey) -> tuple[str, Object] | None:
    """Return the KongPlugin of a key, else the KongClusterPlugin of that name."""
    namespace, name = key
    plugin = scope.get("KongPlugin", namespace, name)
    if plugin is not None:
        return "KongPlugin", plugin
    plugin = scope.get("KongClusterPlugin", "", name)
    return None if plugin is None else ("KongClusterPlugin", plugin)


def prepare(kind: str, plugin: Object, scope: Scope) -> PluginBase:
    """Return what all entries of a plugin share; ConfigError where its configuration cannot be built."""
    entity: Entity = {"name": plugin.get("plugin") or ""}
    config = build_config(kind, plugin, scope)
    if config:
        entity["config"] = config
    if plugin.get("disabled"):
        entity["enabled"] = False
    for name in ("protocols", "ordering", "run_on"):
        if plugin.get(name):
            entity[name] = plugin[name]
    schema = (scope.settings.plugin_schemas or {}).get(entity["name"])
    if schema is not None:
        fill_plugin(entity, schema)
    entity["tags"] = tag(kind, plugin)
    return PluginBase(entity, plugin.get("instance_name"))


def make_entry(
    base: PluginBase, combination: Combination, owner: PluginKey, scope: Scope, whole_hash: bool = False
) -> Entry:
    """Return the entry of a plugin for one combination of targets.

    ``whole_hash`` asks for the longer instance name that keeps it apart from an entry with the same short one.
    """
    entity = dict(base.fields)
    places = dict(combination)
    if base.instance_name is not None:
        digest = hash_places(combination)
        shown = digest if whole_hash else digest[:SHORT_HASH]
        entity["instance_name"] = f"{base.instance_name}-{shown}" if places else base.instance_name
    entity.update(places)
    name = entity["name"]
    identity = name + "".join(f":{kind}/{places[kind]}" for kind in _KEY_ORDER if kind in places)
    entity["id"] = scope.ids.plugin(identity)
    order = "".join((name, *(places.get(kind, "") for kind in ("consumer", "consumer_group", "route", "service"))))
    return Entry((order, owner, combination, whole_hash), drop_empty(entity))


def hash_places(combination: Combination) -> str:
    """Return the hash of what a plugin works on, as it appears in instance names."""
    places = dict(combination)
    text = "".join(f"_{_HASH_WORDS[kind]}-{places[kind]}" for kind in _KEY_ORDER if kind in places)
    return hashlib.sha256(text.encode()).hexdigest()


def report_missing(scope: Scope, key: PluginKey, references: Sequence[Reference]) -> None:
    """Tell every referrer that the plugin does not exist."""
    referrers: dict[ObjectRef, None] = dict.fromkeys(reference.referrer for reference in references)
    for referrer in referrers:
        message = f"Neither KongPlugin {key[0]}/{key[1]} nor KongClusterPlugin {key[1]} exists."
        scope.report_ref(referrer, "PluginNotFound", message)


def list_globals(scope: Scope) -> list[Entry]:
    """Return the entries of the KongClusterPlugins that work everywhere; equal plugin names cancel each other."""
    found: dict[str, list[tuple[str, Object]]] = {}
    for key, plugin in scope.find("all", "KongClusterPlugin"):
        labels: dict[str, Any] = plugin["metadata"].get("labels") or {}
        if labels.get(GLOBAL_LABEL) == "true" and selects(scope, plugin) and plugin.get("plugin"):
            found.setdefault(plugin["plugin"], []).append((key[2], plugin))
    entries = []
    for plugin_name, group in found.items():
        if len(group) > 1:
            message = f"{len(group)} global KongClusterPlugins are of the plugin {plugin_name}: none is used."
            for _, plugin in group:
                scope.report("KongClusterPlugin", plugin, "GlobalPluginDuplicate", message)
            continue
        name, plugin = group[0]
        try:
            base = prepare("KongClusterPlugin", plugin, scope)
        except ConfigError as error:
            scope.report("KongClusterPlugin", plugin, "PluginConfigInvalid", f"It is left out: {error}.")
            continue
        entries.append(make_entry(base, (), ("", name), scope))
    return entries
