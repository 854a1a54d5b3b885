"""Traffic: limits, restrictions, cors, caching, termination, redirects."""

from __future__ import annotations

from typing import Any

from konverge.lab.kong.schema import typedefs as t
from konverge.lab.kong.schema.checks import at_least_one_of, conditional, custom, is_set
from konverge.lab.kong.schema.fields import Field, array, boolean, integer, mapping, number, record, string
from konverge.lab.kong.schema.plugins.base import PluginSchema

PERIODS = ("second", "minute", "hour", "day", "month", "year")
METHODS = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT")
POLICIES = ("local", "redis")
"""Without a database there is no policy "cluster"."""
REDIS_SHORTHANDS = ("host", "port", "password", "username", "ssl", "ssl_verify", "server_name", "timeout", "database")


def check_periods(config: Any) -> str | None:
    """A longer period must not have the smaller limit."""
    given = [(name, config[name]) for name in PERIODS if isinstance(config.get(name), (int, float))]
    for position, (name, limit) in enumerate(given):
        for longer, more in given[position + 1 :]:
            if more < limit:
                return f"The limit for {longer}({more:.1f}) cannot be lower than the limit for {name}({limit:.1f})"
    return None


def _periods() -> dict[str, Field]:
    return {name: number(gt=0) for name in PERIODS}


def _redis_shorthands() -> dict[str, Field]:
    """The old flat names, which Kong still shows next to the ``redis`` block."""
    fields = t.redis()
    return {f"redis_{name}": fields[name].but(default=fields[name].default) for name in REDIS_SHORTHANDS}


RATE_LIMITING_FIELDS: dict[str, Field] = {
    **_periods(),
    "limit_by": string(
        default="consumer",
        one_of=("consumer", "credential", "ip", "service", "header", "path", "consumer-group"),
    ),
    "header_name": t.header_name(),
    "path": string(validate=t.check_path),
    "policy": string(default="local", one_of=POLICIES),
    "fault_tolerant": boolean(required=True, default=True),
    "redis": record(t.redis(), required=True),
    "hide_client_headers": boolean(required=True, default=False),
    "error_code": number(default=429, gt=0),
    "error_message": string(default="API rate limit exceeded"),
    "sync_rate": number(required=True, default=-1),
    **_redis_shorthands(),
}


def _response_limits() -> Field:
    return mapping(
        string(),
        record(_periods(), checks=[at_least_one_of(*PERIODS)], validate=check_periods),
        required=True,
        len_min=1,
    )


PLUGINS = (
    PluginSchema(
        "rate-limiting",
        RATE_LIMITING_FIELDS,
        checks=(
            at_least_one_of(*(f"config.{name}" for name in PERIODS)),
            conditional(
                "config.limit_by",
                lambda value: value == "header",
                "config.header_name",
                lambda value: None if value else "required field missing",
            ),
            conditional(
                "config.limit_by",
                lambda value: value == "path",
                "config.path",
                lambda value: None if value else "required field missing",
            ),
        ),
        config=record(RATE_LIMITING_FIELDS, required=True, validate=check_periods),
    ),
    PluginSchema(
        "response-ratelimiting",
        {
            "header_name": string(default="x-kong-limit"),
            "limit_by": string(default="consumer", one_of=("consumer", "credential", "ip")),
            "policy": string(default="local", one_of=POLICIES),
            "fault_tolerant": boolean(required=True, default=True),
            "redis": record(t.redis(), required=True),
            "block_on_first_violation": boolean(required=True, default=False),
            "hide_client_headers": boolean(required=True, default=False),
            "limits": _response_limits(),
            **_redis_shorthands(),
        },
    ),
    PluginSchema(
        "cors",
        {
            "origins": array(string(validate=t.check_asterisk_or_regex)),
            "headers": array(string()),
            "exposed_headers": array(string()),
            "methods": array(string(one_of=METHODS), default=list(METHODS)),
            "max_age": number(),
            "credentials": boolean(required=True, default=False),
            "private_network": boolean(required=True, default=False),
            "preflight_continue": boolean(required=True, default=False),
        },
        no=("consumer",),
    ),
    PluginSchema(
        "ip-restriction",
        {
            "allow": array(string(validate=t.check_ip_or_cidr)),
            "deny": array(string(validate=t.check_ip_or_cidr)),
            "status": number(),
            "message": string(),
        },
        checks=(at_least_one_of("config.allow", "config.deny"),),
    ),
    PluginSchema(
        "bot-detection",
        {
            "allow": array(string(validate=t.check_regex), default=[]),
            "deny": array(string(validate=t.check_regex), default=[]),
        },
        no=("consumer",),
    ),
    PluginSchema(
        "request-size-limiting",
        {
            "allowed_payload_size": integer(default=128),
            "size_unit": string(required=True, default="megabytes", one_of=("megabytes", "kilobytes", "bytes")),
            "require_content_length": boolean(required=True, default=False),
        },
    ),
    PluginSchema(
        "request-termination",
        {
            "status_code": integer(required=True, default=503, between=(100, 599)),
            "message": string(),
            "content_type": string(),
            "body": string(),
            "echo": boolean(required=True, default=False),
            "trigger": t.header_name(),
        },
        checks=(
            custom(
                ("config.message", "config.content_type", "config.body"),
                lambda plugin: (
                    "message cannot be used with content_type or body"
                    if is_set((plugin.get("config") or {}).get("message"))
                    and any(is_set((plugin.get("config") or {}).get(name)) for name in ("content_type", "body"))
                    else None
                ),
            ),
        ),
    ),
    PluginSchema(
        "redirect",
        {
            "status_code": integer(required=True, default=301, between=(100, 599)),
            "location": t.url(required=True),
            "keep_incoming_path": boolean(default=False),
        },
    ),
    PluginSchema(
        "proxy-cache",
        {
            "response_code": array(integer(between=(100, 900)), required=True, len_min=1, default=[200, 301, 404]),
            "request_method": array(
                string(one_of=("HEAD", "GET", "POST", "PATCH", "PUT")), required=True, default=["GET", "HEAD"]
            ),
            "content_type": array(string(), required=True, default=["text/plain", "application/json"]),
            "cache_ttl": integer(default=300, gt=0),
            "strategy": string(required=True, one_of=("memory",)),
            "cache_control": boolean(required=True, default=False),
            "ignore_uri_case": boolean(default=False),
            "storage_ttl": integer(),
            "memory": record({"dictionary_name": string(required=True, default="kong_db_cache")}, required=True),
            "vary_query_params": array(string()),
            "vary_headers": array(string()),
            "response_headers": record(
                {
                    "age": boolean(default=True),
                    "X-Cache-Status": boolean(default=True),
                    "X-Cache-Key": boolean(default=True),
                },
                required=True,
            ),
        },
        no=("consumer_group",),
    ),
    PluginSchema(
        "standard-webhooks",
        {
            "secret_v1": string(required=True, secret=True),
            "tolerance_second": integer(required=True, default=300, gt=-1),
        },
        no=("consumer",),
    ),
)
