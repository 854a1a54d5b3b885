"""Metering over UDP: statsd and datadog, whose defaults are lists of metrics."""

from __future__ import annotations

from typing import Any

from konverge.lab.kong.schema import typedefs as t
from konverge.lab.kong.schema.fields import Field, array, boolean, integer, number, record, string
from konverge.lab.kong.schema.plugins.base import PluginSchema
from konverge.lab.kong.schema.plugins.logging import queue

STATS = ("counter", "gauge", "histogram", "meter", "set", "timer", "distribution")
IDENTIFIERS = ("consumer_id", "custom_id", "username")
SERVICES = ("service_id", "service_name", "service_host", "service_name_or_host")
WORKSPACES = ("workspace_id", "workspace_name")
STATSD_NAMES = (
    "kong_latency", "latency", "request_count", "request_per_user", "request_size", "response_size",
    "status_count", "status_count_per_user", "unique_users", "upstream_latency",
    "status_count_per_workspace", "status_count_per_user_per_route", "shdict_usage",
    "cache_datastore_hits_total", "cache_datastore_misses_total",
)  # fmt: skip
DATADOG_NAMES = STATSD_NAMES[:10]


def _metric(names: tuple[str, ...], **more: Field) -> Field:
    return record(
        {
            "name": string(required=True, one_of=names),
            "stat_type": string(required=True, one_of=STATS),
            "sample_rate": number(between=(0, 1)),
            "consumer_identifier": string(one_of=(*IDENTIFIERS, "null")),
            **more,
        }
    )


def _statsd_defaults() -> list[dict[str, Any]]:
    service = "service_name_or_host"
    counters: list[dict[str, Any]] = [
        {"name": "request_count", "stat_type": "counter", "sample_rate": 1, "service_identifier": service},
        {"name": "latency", "stat_type": "timer", "service_identifier": service},
        {"name": "request_size", "stat_type": "counter", "sample_rate": 1, "service_identifier": service},
        {"name": "response_size", "stat_type": "counter", "sample_rate": 1, "service_identifier": service},
        {"name": "status_count", "stat_type": "counter", "sample_rate": 1, "service_identifier": service},
        {
            "name": "unique_users",
            "stat_type": "set",
            "service_identifier": service,
            "consumer_identifier": "custom_id",
        },
    ]
    return counters + [
        {"name": name, "stat_type": "counter", "sample_rate": 1, "consumer_identifier": "custom_id",
         "service_identifier": service}
        for name in ("request_per_user", "status_count_per_user")
    ] + [
        {"name": name, "stat_type": "timer", "service_identifier": service}
        for name in ("upstream_latency", "kong_latency")
    ] + [
        {"name": "status_count_per_user_per_route", "stat_type": "counter", "sample_rate": 1,
         "consumer_identifier": "custom_id", "service_identifier": service},
        {"name": "status_count_per_workspace", "stat_type": "counter", "sample_rate": 1,
         "workspace_identifier": "workspace_id"},
        {"name": "shdict_usage", "stat_type": "gauge", "sample_rate": 1, "service_identifier": service},
        {"name": "cache_datastore_hits_total", "stat_type": "counter", "sample_rate": 1,
         "service_identifier": service},
        {"name": "cache_datastore_misses_total", "stat_type": "counter", "sample_rate": 1,
         "service_identifier": service},
    ]  # fmt: skip


def _datadog_defaults() -> list[dict[str, Any]]:
    rows = (
        ("request_count", "counter", 1, None),
        ("latency", "timer", None, None),
        ("request_size", "timer", None, None),
        ("status_count", "counter", 1, None),
        ("response_size", "timer", None, None),
        ("unique_users", "set", None, "custom_id"),
        ("request_per_user", "counter", 1, "custom_id"),
        ("upstream_latency", "timer", None, None),
        ("kong_latency", "timer", None, None),
        ("status_count_per_user", "counter", 1, "custom_id"),
    )
    return [
        {
            "name": name,
            "stat_type": kind,
            "tags": ["app:kong"],
            **({"sample_rate": rate} if rate else {}),
            **({"consumer_identifier": who} if who else {}),
        }
        for name, kind, rate, who in rows
    ]


PLUGINS = (
    PluginSchema(
        "statsd",
        {
            "host": t.host(default="localhost"),
            "port": t.port(default=8125),
            "prefix": string(default="kong"),
            "metrics": array(
                _metric(
                    STATSD_NAMES,
                    service_identifier=string(one_of=SERVICES),
                    workspace_identifier=string(one_of=WORKSPACES),
                ),
                default=_statsd_defaults(),
            ),
            "allow_status_codes": array(string()),
            "udp_packet_size": number(default=0, between=(0, 65507)),
            "use_tcp": boolean(default=False),
            "hostname_in_prefix": boolean(default=False),
            "consumer_identifier_default": string(required=True, default="custom_id", one_of=IDENTIFIERS),
            "service_identifier_default": string(required=True, default="service_name_or_host", one_of=SERVICES),
            "workspace_identifier_default": string(required=True, default="workspace_id", one_of=WORKSPACES),
            "retry_count": integer(),
            "queue_size": integer(),
            "flush_timeout": number(),
            "tag_style": string(one_of=("dogstatsd", "influxdb", "librato", "signalfx")),
            "queue": queue(),
        },
    ),
    PluginSchema(
        "datadog",
        {
            "host": t.host(default="localhost"),
            "port": t.port(default=8125),
            "prefix": string(default="kong"),
            "service_name_tag": string(default="name"),
            "status_tag": string(default="status"),
            "consumer_tag": string(default="consumer"),
            "metrics": array(_metric(DATADOG_NAMES, tags=array(string())), default=_datadog_defaults()),
            "retry_count": integer(),
            "queue_size": integer(),
            "flush_timeout": number(),
            "queue": queue(),
        },
    ),
)
