"""Logging and metrics: the log shippers, prometheus, statsd, datadog, zipkin, opentelemetry."""

from __future__ import annotations

from konverge.lab.kong.schema import typedefs as t
from konverge.lab.kong.schema.fields import Field, array, boolean, integer, mapping, number, record, string
from konverge.lab.kong.schema.plugins.base import PluginSchema

SYSLOG_LEVELS = ("debug", "info", "notice", "warning", "err", "crit", "alert", "emerg")
FACILITIES = (
    "auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news", "syslog", "user", "uucp",
    "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
FORMATS = (
    "preserve", "ignore", "b3", "b3-single", "w3c", "jaeger", "ot", "aws", "datadog", "gcp", "instana",
)  # fmt: skip
EXTRACTED = ("ot", "w3c", "datadog", "b3", "gcp", "jaeger", "aws", "instana")
INJECTED = ("preserve", "ot", "w3c", "datadog", "b3", "b3-single", "gcp", "jaeger", "aws", "instana")


def custom_fields() -> Field:
    """Fields by Lua code."""
    return mapping(string(), string())


def queue() -> Field:
    """The queue of plugins that ship data (``kong/tools/queue_schema.lua``)."""
    return record(
        {
            "max_batch_size": integer(default=1, between=(1, 1000000)),
            "max_coalescing_delay": number(default=1, between=(0, 3600)),
            "max_entries": integer(default=10000, between=(1, 1000000)),
            "max_bytes": integer(),
            "max_retry_time": number(default=60),
            "initial_retry_delay": number(default=0.01, between=(0.001, 1000000)),
            "max_retry_delay": number(default=60, between=(0.001, 1000000)),
            "concurrency_limit": integer(default=1, one_of=(-1, 1)),
        },
        required=True,
    )


def propagation(default: str) -> Field:
    """How trace headers are read and written."""
    return record(
        {
            "extract": array(string(one_of=EXTRACTED)),
            "clear": array(string()),
            "inject": array(string(one_of=INJECTED)),
            "default_format": string(
                required=True,
                default=default,
                one_of=("w3c", "datadog", "b3", "gcp", "b3-single", "jaeger", "aws", "ot", "instana"),
            ),
        },
        required=True,
        default={"default_format": default},
    )


SEVERITIES = ("client_errors_severity", "server_errors_severity", "successful_severity")


def _severities() -> dict[str, Field]:
    return {name: string(default="info", one_of=SYSLOG_LEVELS) for name in SEVERITIES}


def _socket(port: int | None, timeout: int, **more: Field) -> dict[str, Field]:
    return {
        "host": t.host(required=True),
        "port": t.port(required=True) if port is None else t.port(required=True, default=port),
        "timeout": number(default=timeout),
        "custom_fields_by_lua": custom_fields(),
        **more,
    }


PLUGINS = (
    PluginSchema(
        "prometheus",
        {
            "per_consumer": boolean(default=False),
            "status_code_metrics": boolean(default=False),
            "ai_metrics": boolean(default=False),
            "latency_metrics": boolean(default=False),
            "bandwidth_metrics": boolean(default=False),
            "upstream_health_metrics": boolean(default=False),
        },
        no=("consumer",),
    ),
    PluginSchema(
        "http-log",
        {
            "http_endpoint": t.url(required=True),
            "method": string(default="POST", one_of=("POST", "PUT", "PATCH")),
            "content_type": string(
                default="application/json", one_of=("application/json", "application/json; charset=utf-8")
            ),
            "timeout": number(default=10000),
            "keepalive": number(default=60000),
            "retry_count": integer(),
            "queue_size": integer(),
            "flush_timeout": number(),
            "headers": mapping(t.header_name(), string()),
            "queue": queue(),
            "custom_fields_by_lua": custom_fields(),
        },
    ),
    PluginSchema(
        "file-log",
        {
            "path": string(required=True),
            "reopen": boolean(required=True, default=False),
            "custom_fields_by_lua": custom_fields(),
        },
    ),
    PluginSchema("udp-log", _socket(None, 10000)),
    PluginSchema(
        "tcp-log",
        _socket(
            None,
            10000,
            keepalive=number(default=60000),
            tls=boolean(required=True, default=False),
            tls_sni=string(),
        ),
    ),
    PluginSchema(
        "syslog",
        {
            "log_level": string(default="info", one_of=SYSLOG_LEVELS),
            "facility": string(default="user", one_of=FACILITIES),
            "custom_fields_by_lua": custom_fields(),
            **_severities(),
        },
    ),
    PluginSchema(
        "loggly",
        {
            "host": t.host(default="logs-01.loggly.com"),
            "port": t.port(default=514),
            "key": string(required=True, secret=True),
            "tags": array(string(), default=["kong"]),
            "log_level": string(default="info", one_of=SYSLOG_LEVELS),
            "timeout": number(default=10000),
            "custom_fields_by_lua": custom_fields(),
            **_severities(),
        },
    ),
    PluginSchema(
        "zipkin",
        {
            "local_service_name": string(required=True, default="kong"),
            "http_endpoint": t.url(),
            "sample_ratio": number(default=0.001, between=(0, 1)),
            "default_service_name": string(),
            "include_credential": boolean(required=True, default=True),
            "traceid_byte_count": integer(required=True, default=16, one_of=(8, 16)),
            "header_type": string(required=True, default="preserve", one_of=FORMATS),
            "default_header_type": string(required=True, default="b3", one_of=FORMATS[2:]),
            "tags_header": string(required=True, default="Zipkin-Tags"),
            "static_tags": array(record({"name": string(required=True), "value": string(required=True)})),
            "http_span_name": string(required=True, default="method", one_of=("method", "method_path")),
            "connect_timeout": integer(default=2000, between=(0, t.MAX_TIMEOUT)),
            "send_timeout": integer(default=5000, between=(0, t.MAX_TIMEOUT)),
            "read_timeout": integer(default=5000, between=(0, t.MAX_TIMEOUT)),
            "http_response_header_for_traceid": string(),
            "phase_duration_flavor": string(required=True, default="annotations", one_of=("annotations", "tags")),
            "queue": queue(),
            "propagation": propagation("b3"),
        },
    ),
    PluginSchema(
        "opentelemetry",
        {
            "traces_endpoint": t.url(),
            "logs_endpoint": t.url(),
            "headers": mapping(t.header_name(), string()),
            "resource_attributes": mapping(string(required=True), string(required=True)),
            "queue": queue().but(default={"max_batch_size": 200}),
            "batch_span_count": integer(),
            "batch_flush_delay": integer(),
            "connect_timeout": integer(default=1000, between=(0, t.MAX_TIMEOUT)),
            "send_timeout": integer(default=5000, between=(0, t.MAX_TIMEOUT)),
            "read_timeout": integer(default=5000, between=(0, t.MAX_TIMEOUT)),
            "http_response_header_for_traceid": string(),
            "header_type": string(default="preserve", one_of=FORMATS),
            "sampling_rate": number(between=(0, 1)),
            "sampling_strategy": string(
                default="parent_drop_probability_fallback",
                one_of=("parent_drop_probability_fallback", "parent_probability_fallback"),
            ),
            "propagation": propagation("w3c"),
        },
        no=("consumer",),
    ),
)
