"""Every schema by name, and the bundled plugins with their priorities (GET / of a real Kong 3.9.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from konverge.lab.kong.schema.credentials import CREDENTIALS
from konverge.lab.kong.schema.entities import CORE, ENTERPRISE
from konverge.lab.kong.schema.fields import EntitySchema, Field, foreign
from konverge.lab.kong.schema.plugins import authentication, logging, metering, serverless, traffic, transformation
from konverge.lab.kong.schema.plugins.base import PluginSchema
from konverge.lab.kong.schema.routing import EXPRESSION_FIELDS

VERSION = "3.9.3"

PRIORITIES: dict[str, int] = {
    "statsd": 11, "bot-detection": 2500, "aws-lambda": 750, "request-termination": 2, "prometheus": 13,
    "proxy-cache": 100, "session": 1900, "acme": 1705, "grpc-gateway": 998, "grpc-web": 3,
    "pre-function": 1000000, "post-function": -1000, "azure-functions": 749, "zipkin": 100000,
    "opentelemetry": 14, "ai-proxy": 770, "ai-prompt-decorator": 772, "ai-prompt-template": 773,
    "ai-prompt-guard": 771, "ai-request-transformer": 777, "ai-response-transformer": 768,
    "standard-webhooks": 760, "redirect": 779, "jwt": 1450, "acl": 950, "correlation-id": 100001, "cors": 2000,
    "oauth2": 1400, "tcp-log": 7, "udp-log": 8, "file-log": 9, "http-log": 12, "key-auth": 1250,
    "hmac-auth": 1030, "basic-auth": 1100, "ip-restriction": 990, "request-transformer": 801,
    "response-transformer": 800, "request-size-limiting": 951, "rate-limiting": 910,
    "response-ratelimiting": 900, "syslog": 4, "loggly": 6, "datadog": 10, "ldap-auth": 1200,
}  # fmt: skip
"""Bundled plugins in the order of /plugins/enabled, with their priority."""

FAMILIES = (authentication, traffic, transformation, logging, metering, serverless)


class Registry:
    """The schemas that one flavour of Kong knows."""

    def __init__(self, *, enterprise: bool, expressions: bool, plugins: tuple[str, ...] = tuple(PRIORITIES)) -> None:
        entities = list(CORE) + list(CREDENTIALS) + (list(ENTERPRISE) if enterprise else [])
        self.entities: dict[str, EntitySchema] = {schema.name: schema for schema in entities}
        if expressions:
            routes = self.entities["routes"]
            self.entities["routes"] = replace(routes, fields={**routes.fields, **EXPRESSION_FIELDS})
        if enterprise:
            known = self.entities["plugins"]
            fields = {**known.fields, "consumer_group": foreign("consumer_groups")}
            self.entities["plugins"] = replace(known, fields=fields)
        given = {schema.name: schema for family in FAMILIES for schema in family.PLUGINS}
        self.plugins: dict[str, PluginSchema] = {name: given.get(name, PluginSchema(name)) for name in plugins}
        self.by_path = {schema.path: schema for schema in self.entities.values()}
        self.children = self._find_children()

    def _find_children(self) -> dict[str, dict[str, str]]:
        """Return which entities refer to which, by which field: children["services"]["routes"] = "service"."""
        children: dict[str, dict[str, str]] = {name: {} for name in self.entities}
        for schema in self.entities.values():
            for name, field in schema.fields.items():
                if field.kind == "foreign" and field.reference in children:
                    children[field.reference].setdefault(schema.name, name)
        return children

    def plugin_field(self, name: str) -> Field | None:
        """Return the ``config`` field of a plugin; None where the plugin is unknown or takes anything."""
        schema = self.plugins.get(name)
        if schema is None or schema.fields is None:
            return None
        return schema.config or Field("record", required=True, fields=schema.fields)


@cache
def load_registry(
    *, enterprise: bool = False, expressions: bool = False, plugins: tuple[str, ...] = tuple(PRIORITIES)
) -> Registry:
    """Return the shared registry of a flavour."""
    return Registry(enterprise=enterprise, expressions=expressions, plugins=plugins)


def describe_field(field: Field) -> Mapping[str, Any]:
    """Return a field the way GET /schemas prints it."""
    shown: dict[str, Any] = {"type": field.kind if field.kind != "json" else "json"}
    if field.required:
        shown["required"] = True
    if field.has_default:
        shown["default"] = field.default
    if field.auto:
        shown["auto"] = True
    if field.unique:
        shown["unique"] = True
    if field.one_of:
        shown["one_of"] = list(field.one_of)
    if field.between is not None:
        shown["between"] = list(field.between)
    if field.gt is not None:
        shown["gt"] = field.gt
    if field.reference:
        shown["reference"] = field.reference
    for name in ("elements", "keys", "values"):
        part = getattr(field, name)
        if part is not None:
            shown[name] = describe_field(part)
    if field.kind == "record":
        shown["fields"] = [{name: describe_field(part)} for name, part in field.fields.items()]
    return shown
