"""A configuration as a flat table: (kind, natural key) -> entity, with references by natural key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from konverge.kong.marker import ROUTE_NAME, TAG

Entity = dict[str, Any]
Key = tuple[str, tuple[str, ...]]
"""(kind, natural key): a route's name, a plugin's name and what it works on, a credential's owner and value."""

CREDENTIALS: Mapping[str, str] = {
    "keyauth_credentials": "key",
    "basicauth_credentials": "username",
    "hmacauth_credentials": "username",
    "jwt_secrets": "key",
    "oauth2_credentials": "client_id",
    "acls": "group",
    "mtls_auth_credentials": "subject_name",
}
"""Kind -> the field that tells the credentials of a consumer apart."""

REFERENCES = {
    "service": "services",
    "route": "routes",
    "consumer": "consumers",
    "consumer_group": "consumer_groups",
    "upstream": "upstreams",
    "certificate": "certificates",
    "client_certificate": "certificates",
}
"""Field -> the kind that it refers to."""

_CHILDREN: Mapping[str, Mapping[str, str]] = {
    "services": {"routes": "service", "plugins": "service"},
    "routes": {"plugins": "route"},
    "upstreams": {"targets": "upstream"},
    "consumers": {"plugins": "consumer", **dict.fromkeys(CREDENTIALS, "consumer")},
    "consumer_groups": {"plugins": "consumer_group"},
    "certificates": {"snis": "certificate"},
}
"""Kind -> nested list -> the child's field that refers to its parent."""

BOOKKEEPING = frozenset({"created_at", "updated_at", "ws_id", "cert_digest", "run_on"})
"""Fields that Kong adds by itself, or no longer knows."""


@dataclass(slots=True)
class Configuration:
    """A flat configuration. ``kinds`` are those that are known completely, None for all."""

    entities: dict[Key, Entity] = field(default_factory=dict, repr=False)
    kinds: frozenset[str] | None = None
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    """Schemas of the gateway by path: ``routes``, ``plugins/cors``."""


def natural_key(kind: str, entity: Entity) -> tuple[str, ...]:
    """Return what tells an entity apart from the others of its kind; references are natural keys already."""

    def text(*names: str) -> tuple[str, ...]:
        return tuple(str(entity.get(name) or "") for name in names)

    if kind == "consumers":
        return text("username") if entity.get("username") else text("custom_id")
    if kind == "plugins":
        return text("name", "service", "route", "consumer", "consumer_group")
    if kind == "targets":
        return text("upstream", "target")
    if kind == "consumer_group_consumers":
        return text("consumer_group", "consumer")
    if kind in CREDENTIALS:
        return text("consumer", CREDENTIALS[kind])
    if kind in ("certificates", "ca_certificates"):
        return (hashlib.sha256("".join(str(entity.get("cert") or "").split()).encode()).hexdigest(),)
    if kind == "vaults":
        return text("prefix")
    if entity.get("name"):
        return text("name")
    if entity.get("id"):
        return text("id")
    return (orjson.dumps(entity, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode(),)


def flatten(document: Mapping[str, Any]) -> Configuration:
    """Return the flat form of a declarative configuration; what is no list of entities is ignored."""
    loose: list[tuple[str, Entity]] = []
    for kind, entities in document.items():
        if isinstance(entities, list):
            _unnest(kind, entities, {}, loose)
    return tabulate(loose)


def _unnest(kind: str, entities: Iterable[Any], link: Mapping[str, Any], loose: list[tuple[str, Entity]]) -> None:
    for given in entities:
        if not isinstance(given, Mapping):
            continue
        entity = {**given, **link}
        children = _CHILDREN.get(kind, {})
        nested = {name: entity.pop(name) for name in children if isinstance(entity.get(name), list)}
        loose.append((kind, entity))
        parent = _refer(kind, entity)
        for name, items in nested.items():
            members = [{"name": item} if isinstance(item, str) else item for item in items]
            _unnest(name, members, {children[name]: parent}, loose)


def _refer(kind: str, entity: Entity) -> Any:
    key = natural_key(kind, entity)
    return key[0] if len(key) == 1 else list(key)


def tabulate(loose: Iterable[tuple[str, Entity]]) -> Configuration:
    """Return entities as a table, their references resolved to natural keys."""
    items = list(loose)
    names: dict[tuple[str, str], str] = {}
    for kind, entity in items:
        if entity.get("id") and kind in REFERENCES.values():
            names[(kind, str(entity["id"]))] = str(_refer(kind, entity))
    configuration = Configuration()
    for kind, entity in items:
        clean = {name: value for name, value in entity.items() if name not in BOOKKEEPING}
        for name, target in REFERENCES.items():
            if clean.get(name) is not None:
                clean[name] = _resolve(clean[name], target, names)
        key = free_key(configuration, (kind, natural_key(kind, clean)))
        configuration.entities[key] = clean
    return configuration


def _resolve(value: Any, target: str, names: Mapping[tuple[str, str], str]) -> str:
    if isinstance(value, Mapping):
        value = next((value[name] for name in ("id", "name", "username", "custom_id") if value.get(name)), "")
    return names.get((target, str(value)), str(value))


def free_key(configuration: Configuration, key: Key) -> Key:
    """Return a key that is not taken: equal entities, which Kong would refuse, are counted."""
    kind, natural = key
    count = 1
    while key in configuration.entities:
        count += 1
        key = (kind, (*natural, f"#{count}"))
    return key


def label(key: Key, entity: Entity) -> str:
    """Return the name of an entity for people; it shows no secret."""
    kind, natural = key
    singular = kind.removesuffix("s").replace("_", " ")
    if kind == "plugins":
        places = [
            f"{name} {entity[name]}"
            for name in ("service", "route", "consumer", "consumer_group")
            if entity.get(name)
        ]
        return f"plugin {entity.get('name')}" + (" on " + ", ".join(places) if places else "")
    if kind in CREDENTIALS:
        return f"{singular} of consumer {natural[0]}{_origin(entity)}"
    if kind in ("certificates", "ca_certificates"):
        return f"{singular} {entity.get('id') or natural[0][:12]}"
    if kind == "targets":
        return f"target {natural[1]} of upstream {natural[0]}"
    if kind == "consumer_group_consumers":
        return f"membership of consumer {natural[1]} in consumer group {natural[0]}"
    if kind == "licenses":
        return "license"
    return f"{singular} {entity.get('name') or entity.get('username') or entity.get('custom_id') or natural[0][:60]}"


def _origin(entity: Entity) -> str:
    for item in entity.get("tags") or ():
        if isinstance(item, str) and item.startswith("k8s-name:"):
            return f" (Secret {item.removeprefix('k8s-name:')})"
    return ""


def drop_marker(configuration: Configuration) -> Configuration:
    """Take the route that shows which revision is routed, and its plugin, out of a configuration."""
    for key, entity in list(configuration.entities.items()):
        ours = TAG in (entity.get("tags") or ()) or (key[0] == "plugins" and entity.get("route") == ROUTE_NAME)
        if ours:
            del configuration.entities[key]
    return configuration
