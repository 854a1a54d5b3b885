"""A report for people: phases, classes, the first failures, and how well the schedule was kept."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from konverge.errors import DOCS, KonvergeError
from konverge.lab.load.report import Counts, LoadReport

SHOWN_FAILURES = 10


def show_report(report: LoadReport, output: Console) -> None:
    """Print the report for people: phases, classes, then the first failures."""
    output.print(_table("phase", dict(report.phases)))
    output.print(_table("class", dict(report.requests.by_class)))
    for kind, count in report.requests.by_kind.items():
        output.print(f"{count:>8} x {kind}", style="red", highlight=False)
    for sample in report.failures[:SHOWN_FAILURES]:
        output.print(
            f"  +{sample.offset:.3f} s  {sample.class_name}/{sample.target}  {sample.kind}  {sample.detail}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    schedule = report.schedule
    output.print(
        f"{schedule.achieved_rate:g} of {schedule.planned_rate:g} requests/s, schedule lag at most"
        f" {schedule.max_lag_ms:g} ms",
        highlight=False,
    )
    if schedule.note:
        output.print(schedule.note, style="yellow", highlight=False)


def _table(title: str, rows: dict[str, Any]) -> Table:
    table = Table(box=None, header_style="dim")
    table.add_column(title)
    for column in ("total", "failed", "retried", "closed", "p50 ms", "p99 ms", "max ms"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *_cells(row), *(f"{value:.1f}" for value in (row.p50_ms, row.p99_ms, row.max_ms)))
    return table


def _cells(counts: Counts) -> list[str]:
    failed = f"[bold red]{counts.failed}[/]" if counts.failed else "0"
    return [str(counts.total), failed, str(counts.retried_on_stale_connection), str(counts.closed_gracefully)]


def show_failure(error: KonvergeError, output: Console) -> None:
    """Print reason, message and hint of a failure."""
    output.print(f"{error.reason}: {error.message}", markup=False, highlight=False, soft_wrap=True)
    output.print(f"  see {DOCS}{error.hint}", style="dim", markup=False, highlight=False)
