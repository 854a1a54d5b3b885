"""Transformation: request-transformer, response-transformer, correlation-id, gRPC bridges, functions."""

from __future__ import annotations

from typing import Any

from konverge.lab.kong.schema import typedefs as t
from konverge.lab.kong.schema.checks import at_least_one_of
from konverge.lab.kong.schema.fields import Field, array, boolean, record, string
from konverge.lab.kong.schema.plugins.base import PluginSchema

HTTP_PHASES = ("certificate", "rewrite", "access", "header_filter", "body_filter", "log")


def check_pair(value: Any) -> str | None:
    """``name:value``."""
    name, colon, _ = value.partition(":")
    if not colon or not name:
        return f"invalid value: {value}"
    return None


def _pairs() -> Field:
    return array(string(validate=check_pair), default=[])


def _names() -> Field:
    return array(string(), default=[])


def _block(make: Any, *names: str, **more: Field) -> Field:
    return record({name: make() for name in names} | more, required=True)


def _request_transformer() -> dict[str, Field]:
    places = ("body", "headers", "querystring")
    return {
        "http_method": t.http_method(),
        "remove": _block(_names, *places),
        "rename": _block(_pairs, *places),
        "replace": _block(_pairs, *places, uri=string()),
        "add": _block(_pairs, *places),
        "append": _block(_pairs, *places),
    }


def _json_types() -> Field:
    return array(string(one_of=("boolean", "number", "string")), default=[])


def _response_transformer() -> dict[str, Field]:
    def with_json() -> Field:
        return record({"json": _pairs(), "json_types": _json_types(), "headers": _pairs()}, required=True)

    return {
        "remove": record({"json": _names(), "headers": _names()}, required=True),
        "rename": record({"headers": _pairs(), "json": _pairs()}, required=True),
        "replace": with_json(),
        "add": with_json(),
        "append": with_json(),
    }


PLUGINS = (
    PluginSchema("request-transformer", _request_transformer()),
    PluginSchema("response-transformer", _response_transformer()),
    PluginSchema(
        "correlation-id",
        {
            "header_name": string(default="Kong-Request-ID"),
            "generator": string(required=True, default="uuid#counter", one_of=("uuid", "uuid#counter", "tracker")),
            "echo_downstream": boolean(required=True, default=False),
        },
    ),
    PluginSchema(
        "grpc-web",
        {
            "proto": string(),
            "pass_stripped_path": boolean(),
            "allow_origin_header": string(default="*"),
        },
    ),
    PluginSchema("grpc-gateway", {"proto": string()}),
    PluginSchema(
        "pre-function",
        {name: array(string(), default=[], required=True) for name in HTTP_PHASES},
        checks=(at_least_one_of(*(f"config.{name}" for name in HTTP_PHASES)),),
    ),
    PluginSchema(
        "post-function",
        {name: array(string(), default=[], required=True) for name in HTTP_PHASES},
        checks=(at_least_one_of(*(f"config.{name}" for name in HTTP_PHASES)),),
    ),
)
