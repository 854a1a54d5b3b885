"""Prometheus metrics as the bundled plugin exposes them (``kong/plugins/prometheus/exporter.lua``)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from konverge.lab.kong.admin.status import DICTIONARIES, MIB
from konverge.lab.kong.schema.registry import VERSION

if TYPE_CHECKING:
    from konverge.lab.kong.node import StandInKong

KONG_BUCKETS = (1, 2, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 750, 1000, 3000, 6000)
UPSTREAM_BUCKETS = (25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10000, 30000, 60000)

HELP = {
    "bandwidth_bytes": ("counter", "Total bandwidth (ingress/egress) throughput in bytes"),
    "datastore_reachable": ("gauge", "Datastore reachable from Kong, 0 is unreachable"),
    "http_requests_total": ("counter", "HTTP status codes per consumer/service/route in Kong"),
    "kong_latency_ms": (
        "histogram",
        "Latency added by Kong and enabled plugins for each service/route in Kong",
    ),
    "memory_lua_shared_dict_bytes": ("gauge", "Allocated slabs in bytes in a shared_dict"),
    "memory_lua_shared_dict_total_bytes": ("gauge", "Total capacity in bytes of a shared_dict"),
    "memory_workers_lua_vms_bytes": ("gauge", "Allocated bytes in worker Lua VM"),
    "nginx_connections_total": ("gauge", "Number of connections by subsystem"),
    "nginx_metric_errors_total": ("counter", "Number of nginx-lua-prometheus errors"),
    "nginx_requests_total": ("gauge", "Number of requests total"),
    "nginx_timers": ("gauge", "Number of nginx timers"),
    "node_info": ("gauge", "Kong Node metadata information"),
    "request_latency_ms": (
        "histogram",
        "Total latency incurred during requests for each service/route in Kong",
    ),
    "upstream_latency_ms": (
        "histogram",
        "Latency added by upstream response for each service/route in Kong",
    ),
    "upstream_target_health": (
        "gauge",
        "Health status of targets of upstream. States = healthchecks_off|healthy|unhealthy|dns_error, "
        "value is 1 when state is populated.",
    ),
}
HEALTH_STATES = ("dns_error", "healthchecks_off", "healthy", "unhealthy")

Labels = tuple[tuple[str, str], ...]


def escape(value: str) -> str:
    """Escape a label value."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def print_labels(labels: Labels) -> str:
    """Print labels."""
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels) + "}" if labels else ""


class Histogram:
    """One histogram."""

    __slots__ = ("buckets", "count", "limits", "total")

    def __init__(self, limits: tuple[int, ...]) -> None:
        self.limits = limits
        self.buckets = [0] * (len(limits) + 1)
        self.count = 0
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.buckets[bisect_left(self.limits, value)] += 1
        self.count += 1
        self.total += value


class Metrics:
    """The counters of requests. They live as long as the process: a new configuration keeps them."""

    def __init__(self) -> None:
        self.counters: dict[str, dict[Labels, float]] = {"http_requests_total": {}, "bandwidth_bytes": {}}
        self.histograms: dict[str, dict[Labels, Histogram]] = {
            "kong_latency_ms": {},
            "upstream_latency_ms": {},
            "request_latency_ms": {},
        }
        self.used = False

    def add(self, name: str, labels: Labels, value: float) -> None:
        """Add to a counter."""
        found = self.counters[name]
        found[labels] = found.get(labels, 0) + value

    def observe(self, name: str, labels: Labels, value: float) -> None:
        """Add to a histogram."""
        found = self.histograms[name]
        histogram = found.get(labels)
        if histogram is None:
            limits = KONG_BUCKETS if name == "kong_latency_ms" else UPSTREAM_BUCKETS
            histogram = found[labels] = Histogram(limits)
        histogram.observe(value)

    def record(self, config: dict[str, Any], request: RequestMetrics) -> None:
        """Count one proxied request as the plugin's configuration says."""
        self.used = True
        base: Labels = (("service", request.service), ("route", request.route))
        space = ("workspace", "default")
        consumer = ("consumer", request.consumer if config.get("per_consumer") else "")
        if config.get("status_code_metrics"):
            labels = (*base, ("code", str(request.code)), ("source", request.source), space, consumer)
            self.add("http_requests_total", labels, 1)
        if config.get("bandwidth_metrics"):
            self.add("bandwidth_bytes", (*base, ("direction", "ingress"), space, consumer), request.ingress)
            self.add("bandwidth_bytes", (*base, ("direction", "egress"), space, consumer), request.egress)
        if config.get("latency_metrics"):
            self.observe("request_latency_ms", (*base, space), request.total_ms)
            if request.upstream_ms is not None:
                self.observe("upstream_latency_ms", (*base, space), request.upstream_ms)
            self.observe("kong_latency_ms", (*base, space), request.kong_ms)


class RequestMetrics:
    """What is counted about one request."""

    __slots__ = (
        "code", "consumer", "egress", "ingress", "kong_ms", "route", "service", "source", "total_ms", "upstream_ms",
    )  # fmt: skip

    def __init__(self, service: str, route: str) -> None:
        self.service = service
        self.route = route
        self.code = 0
        self.source = "kong"
        self.consumer = ""
        self.ingress = 0
        self.egress = 0
        self.total_ms = 0
        self.kong_ms = 0
        self.upstream_ms: int | None = None


def render(node: StandInKong) -> str:
    """Render everything in the text format, families sorted by name."""
    families: dict[str, list[str]] = {}
    metrics = node.metrics
    for name, series in metrics.counters.items():
        if series:
            families[name] = [
                f"{_name(name)}{print_labels(labels)} {_number(v)}" for labels, v in sorted(series.items())
            ]
    for name, histograms in metrics.histograms.items():
        if histograms:
            families[name] = list(_histogram_lines(name, histograms))
    for name, rows in _gauges(node).items():
        families[name] = [f"{_name(name)}{print_labels(labels)} {_number(value)}" for labels, value in rows]
    lines: list[str] = []
    for name in sorted(families):
        kind, text = HELP[name]
        lines += [f"# HELP {_name(name)} {text}", f"# TYPE {_name(name)} {kind}", *families[name]]
    return "\n".join(lines) + "\n"


def _name(name: str) -> str:
    return f"kong_{name}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(value)


def _histogram_lines(name: str, series: dict[Labels, Histogram]) -> Iterable[str]:
    full = _name(name)
    ordered = sorted(series.items())
    for labels, histogram in ordered:
        total = 0
        for limit, count in zip((*histogram.limits, "+Inf"), histogram.buckets, strict=True):
            total += count
            yield f"{full}_bucket{print_labels((*labels, ('le', str(limit))))} {total}"
    for labels, histogram in ordered:
        yield f"{full}_count{print_labels(labels)} {histogram.count}"
    for labels, histogram in ordered:
        yield f"{full}_sum{print_labels(labels)} {_number(histogram.total)}"


Rows = list[tuple[Labels, float]]


def _gauges(node: StandInKong) -> dict[str, Rows]:
    me = ("node_id", node.node_id)
    http = ("kong_subsystem", "http")
    stats = node.stats
    busy = max(1, stats.busy)
    states = {
        "accepted": stats.accepted,
        "active": stats.active,
        "handled": stats.accepted,
        "reading": 0,
        "total": stats.requests,
        "waiting": max(0, stats.active - busy),
        "writing": busy,
    }
    gauges: dict[str, Rows] = {
        "datastore_reachable": [((), 1)],
        "memory_lua_shared_dict_bytes": [
            ((me, ("shared_dict", name), http), used) for name, _, used in sorted(DICTIONARIES)
        ],
        "memory_lua_shared_dict_total_bytes": [
            ((me, ("shared_dict", name), http), capacity * MIB) for name, capacity, _ in sorted(DICTIONARIES)
        ],
        "memory_workers_lua_vms_bytes": [
            ((me, ("pid", str(pid)), http), node.worker_memory) for pid in node.worker_pids
        ],
        "nginx_connections_total": [
            ((me, ("subsystem", "http"), ("state", state)), value) for state, value in states.items()
        ],
        "nginx_requests_total": [((me, ("subsystem", "http")), stats.requests)],
        "nginx_timers": [((("state", "pending"),), 1), ((("state", "running"),), 641)],
        "node_info": [((me, ("version", VERSION)), 1)],
    }
    if node.metrics.used or node.has_plugin("prometheus"):
        gauges["nginx_metric_errors_total"] = [((), 0)]
    if health := _health_rows(node):
        gauges["upstream_target_health"] = health
    return gauges


def _health_rows(node: StandInKong) -> Rows:
    rows: Rows = []
    if not node.exports_health():
        return rows
    for upstream, target, address, state in node.target_states():
        for candidate in HEALTH_STATES:
            labels: Labels = (
                ("upstream", upstream),
                ("target", target),
                ("address", address),
                ("state", candidate),
                ("subsystem", "http"),
            )
            rows.append((labels, 1 if candidate == state else 0))
    return rows
