"""Reads a proxy's traffic counters out of its Prometheus text; no I/O.

Kong's plugin exports ``kong_http_requests_total`` by status code and ``kong_request_latency_ms`` as a histogram, each
where a setting of the plugin asks for it (``kong/plugins/prometheus/exporter.lua``). With 10,000 routes the text has
tens of megabytes, so only the lines that count are looked at.
"""

from __future__ import annotations

import re

from konverge.kong.marker import ROUTE_NAME
from konverge.model.counters import Counters

_REQUESTS = re.compile(r'^kong_http_requests_total\{([^\n]*?\bcode="(\d+)"[^\n]*)\} (\S+)', re.MULTILINE)
_LATENCY = re.compile(r"^kong_request_latency_ms_(sum|count)(?:\{([^\n]*)\})? (\S+)", re.MULTILINE)
_OURS = f'route="{ROUTE_NAME}"'
"""What our own probes of the data path are counted under: they are no traffic."""


def parse_counters(text: str) -> Counters | None:
    """Return the sums over all routes but our own; None where the plugin is off or counts neither of both."""
    requests = errors = 0.0
    latencies = {"sum": 0.0, "count": 0.0}
    seen = False
    for labels, code, value in _REQUESTS.findall(text):
        seen = True
        if _OURS not in labels:
            requests += float(value)
            errors += float(value) if int(code) >= 500 else 0.0
    for kind, labels, value in _LATENCY.findall(text):
        seen = True
        if _OURS not in labels:
            latencies[kind] += float(value)
    return Counters(requests, errors, latencies["count"], latencies["sum"]) if seen else None
