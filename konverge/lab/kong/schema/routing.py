"""The fields of routes, and which of them go with which protocol (Kong's subschemas of routes)."""

from __future__ import annotations

from typing import Any

from konverge.lab.kong.schema import typedefs as t
from konverge.lab.kong.schema.checks import is_set
from konverge.lab.kong.schema.fields import (
    EntityCheck,
    Field,
    array,
    boolean,
    foreign,
    integer,
    mapping,
    record,
    string,
    unordered,
)

REDIRECTS = (426, 301, 302, 307, 308)
SUBSETS = (("http", "https"), ("tcp", "tls", "udp"), ("tls_passthrough",), ("grpc", "grpcs"))


def _address(**options: Any) -> Field:
    return record({"ip": string(validate=t.check_ip_or_cidr), "port": t.port()}, **options)


def _check_header(value: Any) -> str | None:
    if value.lower() == "host":
        return "cannot contain 'host' header, which must be specified in the 'hosts' attribute"
    return t.check_header_name(value)


def check_protocols(value: Any) -> str | None:
    """The protocols of a route come from one family."""
    families = [subset for subset in SUBSETS if any(item in subset for item in value)]
    if len(families) > 1:
        shown = [tuple(item for item in family if item in value) for family in families]
        text = ", ".join("(" + ", ".join(f"'{item}'" for item in family) + ")" for family in shown)
        return f"these sets are mutually exclusive: {text}"
    return None


ROUTE_FIELDS: dict[str, Field] = {
    "protocols": unordered(
        string(one_of=t.PROTOCOLS),
        required=True,
        len_min=1,
        default=["http", "https"],
        validate=check_protocols,
    ),
    "methods": unordered(t.http_method()),
    "hosts": array(string(validate=t.check_wildcard_host)),
    "paths": array(string(validate=t.check_router_path)),
    "headers": mapping(string(validate=_check_header), array(string())),
    "https_redirect_status_code": integer(required=True, default=426, one_of=REDIRECTS),
    "regex_priority": integer(default=0),
    "strip_path": boolean(required=True, default=True),
    "path_handling": string(default="v0", one_of=("v0", "v1")),
    "preserve_host": boolean(required=True, default=False),
    "request_buffering": boolean(required=True, default=True),
    "response_buffering": boolean(required=True, default=True),
    "snis": unordered(t.sni()),
    "sources": unordered(_address()),
    "destinations": unordered(_address()),
    "tags": t.tags(),
    "service": foreign("services"),
}

EXPRESSION_FIELDS: dict[str, Field] = {
    "expression": string(),
    "priority": integer(required=True, default=0, between=(0, 2**46 - 1)),
}
"""What a route has besides with ``router_flavor = expressions``."""

MATCHERS = {
    "http": ("methods", "hosts", "headers", "paths"),
    "https": ("methods", "hosts", "headers", "paths", "snis"),
    "grpc": ("hosts", "headers", "paths"),
    "grpcs": ("hosts", "headers", "paths", "snis"),
    "tcp": ("sources", "destinations", "snis"),
    "tls": ("sources", "destinations", "snis"),
    "udp": ("sources", "destinations", "snis"),
    "tls_passthrough": ("sources", "destinations", "snis"),
}
FAMILY = {"tcp": "'tcp', 'tls' or 'udp'", "tls": "'tcp', 'tls' or 'udp'", "udp": "'tcp', 'tls' or 'udp'"}
FORBIDDEN = {
    "http": (("sources", "destinations"), "'http' or 'https'"),
    "grpc": (("methods", "sources", "destinations"), "'grpc' or 'grpcs'"),
    "tcp": (("methods", "hosts", "paths", "headers"), "'tcp', 'tls' or 'udp'"),
    "tls_passthrough": (("methods", "hosts", "paths", "headers"), "'tls_passthrough'"),
}
LEADERS = {"https": "http", "grpcs": "grpc", "tls": "tcp", "udp": "tcp"}
SNI_PROTOCOLS = {"grpcs", "https", "tls", "tls_passthrough"}


def _check_matchers(route: dict[str, Any]) -> tuple[str, dict[str, str]]:
    protocols = route.get("protocols") or []
    if is_set(route.get("expression")):
        return "", {}
    leading = next((name for name in ("https", "grpcs", "tls") if name in protocols), None)
    leading = leading or (protocols[0] if protocols else "http")
    names = MATCHERS[leading]
    if any(is_set(route.get(name)) for name in names):
        return "", {}
    listed = ", ".join(f"'{name}'" for name in names)
    family = FAMILY.get(leading, f"'{leading}'")
    return f"must set one of {listed} when 'protocols' is {family}", {}


def _check_foreign_fields(route: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Fields that do not go with the protocols."""
    protocols = route.get("protocols") or ["http"]
    leading = LEADERS.get(protocols[0], protocols[0])
    names, shown = FORBIDDEN[leading]
    errors = {name: f"cannot set '{name}' when 'protocols' is {shown}" for name in names if is_set(route.get(name))}
    if leading == "grpc" and route.get("strip_path") is True:
        errors["strip_path"] = f"cannot set 'strip_path' when 'protocols' is {shown}"
    return "", errors


def _check_snis(route: dict[str, Any]) -> tuple[str, dict[str, str]]:
    if is_set(route.get("snis")) and not SNI_PROTOCOLS & set(route.get("protocols") or []):
        return "", {"snis": "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'"}
    return "", {}


ROUTE_CHECKS = [
    EntityCheck(
        ("protocols", "methods", "hosts", "headers", "paths", "snis", "sources", "destinations"), _check_matchers
    ),
    EntityCheck(
        ("protocols", "methods", "hosts", "paths", "headers", "sources", "destinations"), _check_foreign_fields
    ),
    EntityCheck(("protocols", "snis"), _check_snis),
]
