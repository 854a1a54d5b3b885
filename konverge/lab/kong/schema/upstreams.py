"""Upstreams and targets."""

from __future__ import annotations

from typing import Any

from konverge.lab.kong.schema import typedefs as t
from konverge.lab.kong.schema.checks import conditional, must_be_given
from konverge.lab.kong.schema.fields import (
    EntitySchema,
    Field,
    array,
    boolean,
    foreign,
    integer,
    mapping,
    number,
    record,
    string,
)

HASHES = ("none", "consumer", "ip", "header", "cookie", "path", "query_arg", "uri_capture")
ALGORITHMS = ("consistent-hashing", "least-connections", "round-robin", "latency")
CHECKERS = ("tcp", "http", "https", "grpc", "grpcs")
OK_STATUSES = [200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308]
ACTIVE_FAILURES = [429, 404, 500, 501, 502, 503, 504, 505]


def check_upstream_name(value: Any) -> str | None:
    """A virtual host name: no address, no port."""
    kind = t.host_type(value)
    if kind in ("ipv4", "ipv6"):
        return f"Invalid name ('{value}'); no ip addresses allowed"
    if ":" in value and t.split_port(value) is not None:
        return f"Invalid name ('{value}'); no port allowed"
    return None if kind == "name" else f"Invalid name ('{value}'); must be a valid hostname"


def check_target(value: Any) -> str | None:
    """host[:port]."""
    if t.split_port(value) is None:
        return f"Invalid target ('{value}'); not a valid hostname or ip address"
    return None


def _count(maximum: int, default: int) -> Field:
    return integer(default=default, between=(0, maximum))


def _statuses(default: list[int]) -> Field:
    return array(integer(between=(100, 999)), default=default)


def _seconds(default: float) -> Field:
    return number(default=default, between=(0, 65535))


def _active() -> Field:
    return record(
        {
            "type": string(default="http", one_of=CHECKERS),
            "timeout": _seconds(1),
            "concurrency": integer(default=10, between=(1, 2147483648)),
            "http_path": string(default="/", validate=t.check_path),
            "https_sni": t.sni(),
            "https_verify_certificate": boolean(required=True, default=True),
            "headers": mapping(string(), array(string())),
            "healthy": record(
                {"interval": _seconds(0), "http_statuses": _statuses([200, 302]), "successes": _count(255, 0)},
                required=True,
            ),
            "unhealthy": record(
                {
                    "interval": _seconds(0),
                    "http_statuses": _statuses(ACTIVE_FAILURES),
                    "tcp_failures": _count(255, 0),
                    "timeouts": _count(255, 0),
                    "http_failures": _count(255, 0),
                },
                required=True,
            ),
        },
        required=True,
    )


def _passive() -> Field:
    return record(
        {
            "type": string(default="http", one_of=CHECKERS),
            "healthy": record({"http_statuses": _statuses(OK_STATUSES), "successes": _count(255, 0)}, required=True),
            "unhealthy": record(
                {
                    "http_statuses": _statuses([429, 500, 503]),
                    "tcp_failures": _count(255, 0),
                    "timeouts": _count(255, 0),
                    "http_failures": _count(255, 0),
                },
                required=True,
            ),
        },
        required=True,
    )


UPSTREAMS = EntitySchema(
    "upstreams",
    {
        "id": t.identity(),
        "created_at": t.timestamp(),
        "updated_at": t.timestamp(),
        "name": string(required=True, unique=True, validate=check_upstream_name),
        "algorithm": string(default="round-robin", one_of=ALGORITHMS),
        "hash_on": string(default="none", one_of=HASHES),
        "hash_fallback": string(default="none", one_of=HASHES),
        "hash_on_header": t.header_name(),
        "hash_fallback_header": t.header_name(),
        "hash_on_cookie": string(),
        "hash_on_cookie_path": string(default="/", validate=t.check_path),
        "hash_on_query_arg": string(),
        "hash_fallback_query_arg": string(),
        "hash_on_uri_capture": string(),
        "hash_fallback_uri_capture": string(),
        "slots": integer(default=10000, between=(10, 65536)),
        "healthchecks": record(
            {
                "active": _active(),
                "passive": _passive(),
                "threshold": number(default=0, between=(0, 100)),
            },
            required=True,
        ),
        "tags": t.tags(),
        "host_header": string(validate=t.check_host_or_port),
        "client_certificate": foreign("certificates"),
        "use_srv_name": boolean(default=False),
    },
    endpoint_key="name",
    checks=[
        conditional("hash_on", lambda value: value == "header", "hash_on_header", must_be_given),
        conditional("hash_fallback", lambda value: value == "header", "hash_fallback_header", must_be_given),
        conditional("hash_on", lambda value: value == "cookie", "hash_on_cookie", must_be_given),
        conditional("hash_on", lambda value: value == "query_arg", "hash_on_query_arg", must_be_given),
        conditional("hash_on", lambda value: value == "uri_capture", "hash_on_uri_capture", must_be_given),
    ],
)

TARGETS = EntitySchema(
    "targets",
    {
        "id": t.identity(),
        "created_at": number(auto="now"),
        "updated_at": number(auto="now"),
        "upstream": foreign("upstreams", required=True),
        "target": string(required=True, validate=check_target),
        "weight": integer(default=100, between=(0, 65535)),
        "tags": t.tags(),
    },
    endpoint_key="target",
    cache_key=("upstream", "target"),
    milliseconds=True,
)
