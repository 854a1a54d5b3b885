"""The report of the demo: what was there before and after, what every proxy runs, and every request counted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from rich.console import Console
from rich.table import Table

from konverge.lab.load.report import LoadReport

PHASES = ("before", "during", "after")


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Topology(_Part):
    """What runs in the cluster at one moment."""

    proxies: int
    controllers: int
    watches: int = Field(description="Open Kubernetes watches beyond those of the lab's own components.")


class ProxyLine(_Part):
    """What one proxy runs at the end."""

    loaded_hash: str
    synced: bool
    mtls: bool
    mtls_expires: datetime | None = None
    traffic: bool


class StepLine(_Part):
    """One step of the migration."""

    name: str
    seconds: float | None
    message: str


class LatencyLine(_Part):
    """Latency of one phase, milliseconds from the intended start of each request."""

    requests: int
    failed: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class RequestsLine(_Part):
    """Every request of the run."""

    total: int
    ok: int
    failed: int
    by_kind: dict[str, int]
    retried_on_stale_connection: int
    closed_gracefully: int


class DemoReport(_Part):
    """The whole report; written as JSON."""

    mode: str
    succeeded: bool
    requests: RequestsLine
    latency: dict[str, LatencyLine]
    before: Topology
    after: Topology
    proxies: dict[str, ProxyLine]
    steps: list[StepLine]
    flow_run: str = ""
    failures: list[dict[str, Any]] = Field(default_factory=list, description="The first failures, with their time.")
    schedule: dict[str, Any] = Field(default_factory=dict, description="How well the generator kept its schedule.")
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the camelCase JSON form."""
        return self.model_dump(mode="json", by_alias=True)


def read_requests(load: LoadReport) -> RequestsLine:
    """Return the totals of a load run."""
    counts = load.requests
    return RequestsLine(
        total=counts.total,
        ok=counts.ok,
        failed=counts.failed,
        by_kind=counts.by_kind,
        retried_on_stale_connection=counts.retried_on_stale_connection,
        closed_gracefully=counts.closed_gracefully,
    )


def read_latency(load: LoadReport) -> dict[str, LatencyLine]:
    """Return the latency of each phase."""
    return {
        name: LatencyLine(
            requests=phase.total, failed=phase.failed, p50_ms=phase.p50_ms, p99_ms=phase.p99_ms, max_ms=phase.max_ms
        )
        for name, phase in load.phases.items()
    }


def print_report(report: DemoReport, console: Console) -> None:
    """Show the report; it fits 80 columns."""
    console.rule(f"[bold]{'The naive way' if report.mode == 'naive' else 'Migration'}[/]")
    _print_topology(report, console)
    _print_latency(report, console)
    if report.proxies:
        _print_proxies(report, console)
    requests = report.requests
    colour = "green" if requests.failed == 0 else "red"
    console.print(
        f"[bold {colour}]{requests.failed} of {requests.total} requests failed[/]"
        f" ({requests.retried_on_stale_connection} retried on a stale connection,"
        f" {requests.closed_gracefully} sessions closed gracefully)"
    )
    for kind, count in sorted(requests.by_kind.items(), key=lambda item: -item[1]):
        console.print(f"  {count:6} {kind}")
    if report.flow_run:
        console.print(f"flow run: {report.flow_run}", style="dim", soft_wrap=True)


def _print_topology(report: DemoReport, console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "PROXIES", "CONTROLLERS", "WATCHES"):
        table.add_column(column, justify="right")
    for name, at in (("before", report.before), ("after", report.after)):
        table.add_row(name, str(at.proxies), str(at.controllers), str(at.watches))
    console.print(table)


def _print_latency(report: DemoReport, console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("PHASE", "REQUESTS", "FAILED", "P50 ms", "P99 ms", "MAX ms"):
        table.add_column(column, justify="right")
    for name in PHASES:
        line = report.latency.get(name)
        if line is not None:
            values = (f"{line.p50_ms:.1f}", f"{line.p99_ms:.1f}", f"{line.max_ms:.0f}")
            table.add_row(name, str(line.requests), str(line.failed), *values)
    console.print(table)


def _print_proxies(report: DemoReport, console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("PROXY", "LOADED", "SYNCED", "MTLS UNTIL", "TRAFFIC"):
        table.add_column(column, overflow="fold")
    for name, line in sorted(report.proxies.items()):
        until = f"{line.mtls_expires:%Y-%m-%d %H:%M}" if line.mtls_expires else "-"
        words = ("yes" if line.synced else "no", until, "yes" if line.traffic else "no")
        table.add_row(name, line.loaded_hash[:12], *words)
    console.print(table)
