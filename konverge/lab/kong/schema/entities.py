"""The core entities: services, routes, consumers, plugins, certificates, vaults, keys."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from konverge.lab.kong.schema import typedefs as t
from konverge.lab.kong.schema.checks import (
    among,
    at_least_one_of,
    conditional,
    custom,
    must_be_null,
    mutually_required,
)
from konverge.lab.kong.schema.fields import (
    EntitySchema,
    Field,
    array,
    boolean,
    foreign,
    integer,
    mapping,
    record,
    string,
)
from konverge.lab.kong.schema.pem import check_certificate, check_key, check_pair
from konverge.lab.kong.schema.routing import ROUTE_CHECKS, ROUTE_FIELDS
from konverge.lab.kong.schema.upstreams import TARGETS, UPSTREAMS

STREAM_OR_GRPC = ("grpc", "grpcs", "tcp", "tls", "tls_passthrough", "udp")
NO_TLS = ("http", "grpc", "tcp", "udp")
DEFAULT_PORTS = {"http": 80, "https": 443, "grpc": 80, "grpcs": 443, "tcp": 80, "tls": 443, "udp": 80}


def _stamps(*, updated: bool = True) -> dict[str, Field]:
    stamps = {"id": t.identity(), "created_at": t.timestamp()}
    return stamps | {"updated_at": t.timestamp()} if updated else stamps


def split_url(value: Any) -> tuple[dict[str, Any], str | None]:
    """Take a service's ``url`` apart into protocol, host, port and path."""
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or not parts.hostname:
        return {}, "missing host in url"
    try:
        port = parts.port
    except ValueError:
        return {}, "missing host in url"
    found = {
        "protocol": parts.scheme,
        "host": parts.hostname,
        "port": port or DEFAULT_PORTS.get(parts.scheme, 80),
        "path": parts.path or None,
    }
    return found, None


SERVICES = EntitySchema(
    "services",
    {
        **_stamps(),
        "name": t.utf8_name(unique=True),
        "retries": integer(default=5, between=(0, 32767)),
        "protocol": string(required=True, default="http", one_of=t.PROTOCOLS),
        "host": t.host(required=True),
        "port": t.port(required=True, default=80),
        "path": string(validate=t.check_path),
        "connect_timeout": integer(default=60000, between=(1, t.MAX_TIMEOUT)),
        "write_timeout": integer(default=60000, between=(1, t.MAX_TIMEOUT)),
        "read_timeout": integer(default=60000, between=(1, t.MAX_TIMEOUT)),
        "tags": t.tags(),
        "client_certificate": foreign("certificates"),
        "tls_verify": boolean(),
        "tls_verify_depth": integer(between=(0, 64)),
        "ca_certificates": array(t.uuid_field()),
        "enabled": boolean(required=True, default=True),
    },
    endpoint_key="name",
    checks=[
        conditional("protocol", among(*STREAM_OR_GRPC), "path", must_be_null),
        conditional("protocol", among(*NO_TLS), "client_certificate", must_be_null),
        conditional("protocol", among(*NO_TLS), "tls_verify", must_be_null),
        conditional("protocol", among(*NO_TLS), "tls_verify_depth", must_be_null),
        conditional("protocol", among(*NO_TLS), "ca_certificates", must_be_null),
    ],
    shorthands={"url": split_url},
)

ROUTES = EntitySchema(
    "routes",
    {**_stamps(), "name": t.utf8_name(unique=True), **ROUTE_FIELDS},
    endpoint_key="name",
    checks=ROUTE_CHECKS,
)

CONSUMERS = EntitySchema(
    "consumers",
    {
        **_stamps(),
        "username": string(unique=True),
        "custom_id": string(unique=True),
        "tags": t.tags(),
    },
    endpoint_key="username",
    checks=[at_least_one_of("custom_id", "username")],
)

CONSUMER_GROUPS = EntitySchema(
    "consumer_groups",
    {**_stamps(), "name": t.utf8_name(required=True, unique=True), "tags": t.tags()},
    endpoint_key="name",
)

CONSUMER_GROUP_CONSUMERS = EntitySchema(
    "consumer_group_consumers",
    {
        **_stamps(),
        "consumer_group": foreign("consumer_groups", required=True),
        "consumer": foreign("consumers", required=True),
    },
    cache_key=("consumer_group", "consumer"),
)

PLUGINS = EntitySchema(
    "plugins",
    {
        **_stamps(),
        "name": string(required=True),
        "instance_name": t.utf8_name(unique=True),
        "route": foreign("routes"),
        "service": foreign("services"),
        "consumer": foreign("consumers"),
        "config": record({}, required=True),
        "protocols": t.protocols(required=True, default=["grpc", "grpcs", "http", "https"]),
        "enabled": boolean(required=True, default=True),
        "tags": t.tags(),
    },
    endpoint_key="instance_name",
    cache_key=("name", "route", "service", "consumer"),
)

CERTIFICATES = EntitySchema(
    "certificates",
    {
        **_stamps(),
        "cert": string(required=True, validate=check_certificate),
        "key": string(required=True, validate=check_key, secret=True),
        "cert_alt": string(validate=check_certificate),
        "key_alt": string(validate=check_key, secret=True),
        "tags": t.tags(),
    },
    checks=[
        mutually_required("cert_alt", "key_alt"),
        custom(("cert", "key"), lambda value: check_pair(value.get("cert"), value.get("key"))),
        custom(("cert_alt", "key_alt"), lambda value: check_pair(value.get("cert_alt"), value.get("key_alt"))),
    ],
)

SNIS = EntitySchema(
    "snis",
    {
        **_stamps(),
        "name": t.sni(required=True, unique=True),
        "tags": t.tags(),
        "certificate": foreign("certificates", required=True),
    },
    endpoint_key="name",
)

CA_CERTIFICATES = EntitySchema(
    "ca_certificates",
    {
        **_stamps(),
        "cert": string(required=True, validate=check_certificate),
        "cert_digest": string(unique=True),
        "tags": t.tags(),
    },
)

VAULTS = EntitySchema(
    "vaults",
    {
        **_stamps(),
        "prefix": string(required=True, unique=True),
        "name": string(required=True),
        "description": string(),
        "config": mapping(string(), Field("any")),
        "tags": t.tags(),
    },
    endpoint_key="prefix",
    cache_key=("prefix",),
)

KEY_SETS = EntitySchema(
    "key_sets",
    {**_stamps(), "name": string(unique=True), "tags": t.tags()},
    endpoint_key="name",
    admin_name="key-sets",
)

KEYS = EntitySchema(
    "keys",
    {
        **_stamps(),
        "set": foreign("key_sets"),
        "name": string(unique=True),
        "kid": string(required=True),
        "jwk": string(secret=True),
        "pem": record(
            {"private_key": string(secret=True), "public_key": string()},
        ),
        "tags": t.tags(),
    },
    endpoint_key="name",
    cache_key=("kid", "set"),
    checks=[at_least_one_of("jwk", "pem")],
)

FILTER_CHAINS = EntitySchema(
    "filter_chains",
    {
        **_stamps(),
        "name": t.utf8_name(unique=True),
        "enabled": boolean(required=True, default=True),
        "route": foreign("routes"),
        "service": foreign("services"),
        "filters": array(
            record(
                {
                    "name": string(required=True),
                    "enabled": boolean(required=True, default=True),
                    "config": Field("any"),
                }
            ),
            required=True,
        ),
        "tags": t.tags(),
    },
    endpoint_key="name",
    cache_key=("route", "service"),
    admin_name="filter-chains",
)

CORE = (
    SERVICES,
    ROUTES,
    CONSUMERS,
    PLUGINS,
    CERTIFICATES,
    CA_CERTIFICATES,
    SNIS,
    UPSTREAMS,
    TARGETS,
    VAULTS,
    KEY_SETS,
    KEYS,
    FILTER_CHAINS,
)

ENTERPRISE = (CONSUMER_GROUPS, CONSUMER_GROUP_CONSUMERS)
