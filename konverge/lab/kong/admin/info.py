"""What a node tells about itself: /, /endpoints, /plugins/enabled, /schemas, /timers."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from konverge.lab.kong.admin.answers import Answer, coded, ok, say
from konverge.lab.kong.declarative.failures import to_json
from konverge.lab.kong.declarative.validating import validate_entity
from konverge.lab.kong.schema.fields import Field
from konverge.lab.kong.schema.registry import PRIORITIES, VERSION, describe_field

if TYPE_CHECKING:
    from konverge.lab.kong.node import StandInKong

ENDPOINTS = (
    "/", "/acme", "/acme/certificates", "/acme/certificates/{certificates}", "/cache", "/cache/{key}",
    "/clustering/data-planes", "/clustering/status", "/config", "/debug/cluster/log-level/{log_level}",
    "/debug/node/log-level", "/debug/node/log-level/{log_level}", "/endpoints", "/metrics", "/plugins/enabled",
    "/plugins/schema/{name}", "/proxy-cache", "/proxy-cache/{cache_key}",
    "/proxy-cache/{plugin_id}/caches/{cache_key}", "/routes/{routes}/filters/all",
    "/routes/{routes}/filters/disabled", "/routes/{routes}/filters/enabled", "/schemas/filters/{name}",
    "/schemas/plugins/validate", "/schemas/plugins/{name}", "/schemas/vaults/validate", "/schemas/vaults/{name}",
    "/schemas/{db_entity_name}/validate", "/schemas/{name}", "/status", "/status/dns", "/tags", "/tags/{tags}",
    "/timers", "/upstreams/{upstreams}/health", "/upstreams/{upstreams}/targets/all",
    "/upstreams/{upstreams}/targets/{targets}/healthy", "/upstreams/{upstreams}/targets/{targets}/unhealthy",
    "/upstreams/{upstreams}/targets/{targets}/{address}/healthy",
    "/upstreams/{upstreams}/targets/{targets}/{address}/unhealthy",
)  # fmt: skip
"""Paths that do not follow from the entities."""

HIDDEN = {
    ("ca_certificates", "services"), ("keys", "key-sets"), ("certificates", "ca_certificates"),
    ("consumers", "oauth2_tokens"),
}  # fmt: skip


def read_root(node: StandInKong) -> Answer:
    """Answer GET /."""
    known = node.registry.plugins
    in_use = {plugin["name"] for plugin in node.shown.list("plugins")}
    available = {name: {"priority": PRIORITIES.get(name, 0), "version": VERSION} for name in known}
    return ok(
        {
            "hostname": node.settings.pod.name or socket.gethostname(),
            "plugins": {"available_on_server": available, "enabled_in_cluster": sorted(in_use)},
            "pids": {"master": node.master_pid, "workers": list(node.worker_pids)},
            "tagline": "Welcome to kong",
            "lua_version": "LuaJIT 2.1.1700206165",
            "node_id": node.node_id,
            "timers": {"pending": 1, "running": 641},
            "configuration": node.configuration(),
            "edition": "community",
            "version": VERSION,
        }
    )


def read_endpoints(node: StandInKong) -> Answer:
    """Answer GET /endpoints."""
    registry = node.registry
    found = set(ENDPOINTS)
    for schema in registry.entities.values():
        one = f"/{schema.path}/{{{schema.name}}}"
        found |= {f"/{schema.path}", one}
        for field_name, field in schema.fields.items():
            if field.kind == "foreign":
                found.add(f"{one}/{field_name}")
        for kind in registry.children[schema.name]:
            child = registry.entities[kind]
            name = child.nested_name or child.path
            if (schema.name, name) not in HIDDEN:
                found |= {f"{one}/{name}", f"{one}/{name}/{{{kind}}}"}
    return ok({"data": sorted(found)})


def read_plugins(node: StandInKong) -> Answer:
    """Answer GET /plugins/enabled."""
    return ok({"enabled_plugins": list(node.registry.plugins)})


def read_schema(node: StandInKong, name: str) -> Answer:
    """Answer GET /schemas/x."""
    schema = node.registry.entities.get(name)
    if schema is None:
        return say(404, f"No entity named '{name}'")
    return ok({"fields": [{key: describe_field(field)} for key, field in schema.fields.items()]})


def read_plugin_schema(node: StandInKong, name: str) -> Answer:
    """Answer GET /schemas/plugins/x."""
    if name not in node.registry.plugins:
        return say(404, f"No plugin named '{name}'")
    config = node.registry.plugin_field(name) or Field("record", required=True)
    scopes = [
        {key: describe_field(node.registry.entities["plugins"].fields[key])} for key in ("consumer", "protocols")
    ]
    return ok({"entity_checks": [], "fields": [*scopes, {"config": describe_field(config)}]})


def validate(node: StandInKong, kind: str, body: dict[str, Any]) -> Answer:
    """Answer POST /schemas/x/validate."""
    schema = node.registry.entities.get(kind)
    if schema is None:
        return say(404, f"No entity named '{kind}'")
    errors = validate_entity(schema, body, node.registry)
    if not errors:
        return say(200, "schema validation successful")
    return violation(errors)


def violation(errors: dict[str, Any]) -> Answer:
    """Return a schema violation the way the Admin API words it."""
    texts = sorted(_words(errors, ""))
    count = f"{len(texts)} schema violations" if len(texts) > 1 else "schema violation"
    return coded(400, 2, "schema violation", f"{count} ({'; '.join(texts)})", to_json(errors))


def _words(errors: dict[Any, Any], prefix: str) -> list[str]:
    found: list[str] = []
    for name, error in errors.items():
        path = prefix + (str(name + 1) if isinstance(name, int) else str(name))
        if name == "@entity":
            found += list(error.values())
        elif isinstance(error, dict):
            found += _words(error, path + ".")
        else:
            found.append(f"{path}: {error}")
    return found
