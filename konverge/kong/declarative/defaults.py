"""Defaults that Kong fills in, so that an entity as written and the same entity as stored look alike.

Where the gateway's schema is at hand it is used; else the table below, which follows the entity schemas of Kong 3.9
(``kong/db/schema/entities``). The configuration of a plugin is only filled with the plugin's schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

Schema = Mapping[str, Any]

_OK_STATUSES = [200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308]
_UNHEALTHY = {"tcp_failures": 0, "timeouts": 0, "http_failures": 0}

CORE: Mapping[str, Mapping[str, Any]] = {
    "services": {
        "protocol": "http",
        "port": 80,
        "retries": 5,
        "connect_timeout": 60000,
        "read_timeout": 60000,
        "write_timeout": 60000,
        "enabled": True,
    },
    "routes": {
        "protocols": ["http", "https"],
        "https_redirect_status_code": 426,
        "strip_path": True,
        "preserve_host": False,
        "request_buffering": True,
        "response_buffering": True,
    },
    "upstreams": {
        "algorithm": "round-robin",
        "hash_on": "none",
        "hash_fallback": "none",
        "hash_on_cookie_path": "/",
        "slots": 10000,
        "use_srv_name": False,
        "sticky_sessions_cookie_path": "/",
        "healthchecks": {
            "threshold": 0,
            "active": {
                "type": "http",
                "timeout": 1,
                "concurrency": 10,
                "http_path": "/",
                "https_verify_certificate": True,
                "healthy": {"interval": 0, "http_statuses": [200, 302], "successes": 0},
                "unhealthy": {
                    "interval": 0,
                    "http_statuses": [429, 404, 500, 501, 502, 503, 504, 505],
                    **_UNHEALTHY,
                },
            },
            "passive": {
                "type": "http",
                "healthy": {"http_statuses": _OK_STATUSES, "successes": 0},
                "unhealthy": {"http_statuses": [429, 500, 503], **_UNHEALTHY},
            },
        },
    },
    "targets": {"weight": 100},
    "plugins": {"enabled": True, "protocols": ["grpc", "grpcs", "http", "https"]},
    "jwt_secrets": {"algorithm": "HS256"},
    "oauth2_credentials": {"hash_secret": False, "client_type": "confidential"},
}
_TRADITIONAL_ROUTE = {"regex_priority": 0, "path_handling": "v0"}
_EXPRESSION_ROUTE = {"priority": 0}
_STREAM = frozenset({"tcp", "tls", "udp", "tls_passthrough"})
_IGNORED_ON_STREAMS = ("strip_path", "path_handling", "regex_priority")

GENERATED: Mapping[str, tuple[str, ...]] = {
    "keyauth_credentials": ("key", "ttl"),
    "hmacauth_credentials": ("secret",),
    "jwt_secrets": ("key", "secret"),
    "oauth2_credentials": ("client_id", "client_secret"),
}
"""Fields that Kong makes up where they are not given, or that change by themselves (``ttl`` counts down)."""

SETS: Mapping[str, frozenset[str]] = {
    "routes": frozenset({"hosts", "paths", "methods", "protocols", "snis", "sources", "destinations"}),
    "services": frozenset({"ca_certificates"}),
    "plugins": frozenset({"protocols"}),
}
"""Lists whose order means nothing; ``tags`` is one for every kind."""

MAX_DEPTH = 50


def normalise(kind: str, entity: Mapping[str, Any], schemas: Mapping[str, Schema]) -> dict[str, Any]:
    """Return an entity with its defaults, without empty fields, its sets sorted."""
    filled = _merge(_defaults(kind, entity), entity)
    if kind == "plugins":
        filled = _fill_plugin(filled, entity, schemas.get(f"plugins/{entity.get('name')}"))
    elif kind in schemas:
        filled = fill_record(filled, schemas[kind])
    if kind == "routes" and _STREAM & set(filled.get("protocols") or ()):
        filled = {name: value for name, value in filled.items() if name not in _IGNORED_ON_STREAMS}
    sets = SETS.get(kind, frozenset()) | {"tags"}
    return {
        name: _sorted(value) if name in sets and isinstance(value, list) else value
        for name, value in _prune(filled).items()
    }


def _defaults(kind: str, entity: Mapping[str, Any]) -> Mapping[str, Any]:
    defaults = CORE.get(kind, {})
    if kind == "routes":
        return {**defaults, **(_EXPRESSION_ROUTE if entity.get("expression") else _TRADITIONAL_ROUTE)}
    return defaults


def _merge(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(given)
    for name, default in defaults.items():
        value = merged.get(name)
        if value is None:
            merged[name] = default
        elif isinstance(default, Mapping) and isinstance(value, Mapping):
            merged[name] = _merge(default, value)
    return merged


def _fill_plugin(filled: dict[str, Any], given: Mapping[str, Any], schema: Schema | None) -> dict[str, Any]:
    if schema is None:
        return filled
    fields = dict(_fields(schema))
    if not given.get("protocols") and (fields.get("protocols") or {}).get("default"):
        filled["protocols"] = fields["protocols"]["default"]
    if "config" in fields:
        filled["config"] = fill_record(given.get("config") or {}, fields["config"])
    return filled


def _fields(schema: Schema, name: str = "fields") -> Iterator[tuple[str, Mapping[str, Any]]]:
    items = schema.get(name)
    for item in items if isinstance(items, list) else ():
        for field, attributes in item.items() if isinstance(item, Mapping) else ():
            if isinstance(attributes, Mapping):
                yield field, attributes


def fill_record(given: Any, record: Schema, depth: int = 0) -> Any:
    """Return a record as Kong stores it: defaults filled in, shorthands expanded, sets sorted."""
    if not isinstance(given, Mapping) or depth > MAX_DEPTH:
        return given
    filled = _expand(dict(given), record)
    enclosing = record.get("default")
    for name, attributes in _fields(record):
        value = filled.get(name)
        if value is None and isinstance(enclosing, Mapping):
            value = enclosing.get(name)
        if value is None:
            value = attributes.get("default")
        filled[name] = _fill_value(value, attributes, depth)
    return filled


def _fill_value(value: Any, attributes: Mapping[str, Any], depth: int) -> Any:
    kind = attributes.get("type")
    if kind == "record":
        return fill_record({} if value is None and attributes.get("required") else value, attributes, depth + 1)
    elements = attributes.get("elements")
    if kind in ("array", "set") and isinstance(value, list):
        if isinstance(elements, Mapping) and elements.get("type") == "record":
            value = [fill_record(item, elements, depth + 1) for item in value]
        return _sorted(value) if kind == "set" else value
    return value


def _expand(given: dict[str, Any], record: Schema) -> dict[str, Any]:
    """Move the value of a deprecated shorthand to the field that replaces it."""
    for name, attributes in _fields(record, "shorthand_fields"):
        value = given.pop(name, None)
        deprecation = attributes.get("deprecation")
        replaced = deprecation.get("replaced_with") if isinstance(deprecation, Mapping) else None
        for replacement in (replaced if isinstance(replaced, list) else ()) if value is not None else ():
            path = replacement.get("path") if isinstance(replacement, Mapping) else None
            if isinstance(path, list) and path:
                _place(given, [str(step) for step in path], value)
    return given


def _place(record: dict[str, Any], path: list[str], value: Any) -> None:
    for step in path[:-1]:
        inner = record.get(step)
        record[step] = dict(inner) if isinstance(inner, Mapping) else {}
        record = record[step]
    if record.get(path[-1]) is None:
        record[path[-1]] = value


def _prune(value: Any) -> Any:
    if isinstance(value, Mapping):
        pruned = {name: _prune(item) for name, item in value.items()}
        return {name: item for name, item in pruned.items() if item is not None and item not in ([], {})}
    if isinstance(value, list):
        return [_prune(item) for item in value]
    return value


def _sorted(values: list[Any]) -> list[Any]:
    return sorted(values, key=lambda item: orjson.dumps(item, option=orjson.OPT_SORT_KEYS, default=str))
