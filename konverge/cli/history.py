"""konverge history: the stored revisions of a fleet, what became of each, and what differs between two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from konverge.cli.differences import show_differences
from konverge.cli.opening import open_fleet
from konverge.cli.options import Context, FleetName, Kubeconfig, Namespace, Output, build_target
from konverge.cli.output import USAGE, Format, console, print_json, run_async
from konverge.errors import NotFound
from konverge.kong.declarative import Difference, compare
from konverge.model.fleet import Fleet
from konverge.model.revision import RevisionOutcome, RevisionRecord
from konverge.model.target import Target
from konverge.operate.drifting import flatten_revision
from konverge.operate.revisions import list_records, load_revision

COLOURS = {RevisionOutcome.GOOD: "green", RevisionOutcome.HARMFUL: "red", RevisionOutcome.SUPERSEDED: "dim"}


def history(
    fleet: FleetName,
    other: Annotated[
        int | None, typer.Argument(metavar="[M]", help="With --diff: what N is compared with.", show_default=False)
    ] = None,
    diff: Annotated[
        int | None, typer.Option("--diff", metavar="N", help="Show what N changed, or how N differs from M.")
    ] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """List the stored revisions of a fleet, newest first: who made each, why, and what became of it.

    With --diff the exit code is 2 where the two differ; secrets are never shown.
    Examples: konverge history --fleet shop; konverge history --fleet shop --diff 12; ... --diff 12 9
    """
    target = build_target(fleet, namespace, kubeconfig, context)
    if diff is not None:
        _print_difference(*run_async(_compare(target, diff, other), output), output)
        return
    if other is not None:
        raise typer.BadParameter("a second revision is compared with --diff N only", param_hint="M")
    found, records = run_async(_read(target), output)
    if output is Format.JSON:
        print_json(
            {
                "current": found.status.current_revision,
                "lastGood": found.status.last_good_revision,
                "pinned": found.spec.pinned_revision,
                "revisions": [_as_json(found, record) for record in records],
            }
        )
        return
    _print_table(found, records)


async def _read(target: Target) -> tuple[Fleet, list[RevisionRecord]]:
    async with open_fleet(target) as (kube, fleet):
        return fleet, await list_records(kube, fleet)


def mark(fleet: Fleet, number: int) -> list[str]:
    """Return what a revision is to its fleet: current, last good, pinned."""
    marks = {
        "current": fleet.status.current_revision,
        "last good": fleet.status.last_good_revision,
        "pinned": fleet.spec.pinned_revision,
    }
    return [name for name, marked in marks.items() if marked == number]


def _as_json(fleet: Fleet, record: RevisionRecord) -> dict[str, Any]:
    return {**record.spec.to_json(), "status": record.status.to_json(), "marks": mark(fleet, record.number)}


def _print_table(fleet: Fleet, records: list[RevisionRecord]) -> None:
    now = datetime.now(UTC)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("REV", "IS", "OUTCOME", "AGE", "HASH", "AUTHOR", "WHAT CHANGED"):
        table.add_column(column, overflow="fold", no_wrap=column in ("REV", "AGE", "HASH"))
    for record in records:
        outcome = record.status.outcome
        why = f"{record.status.reason}: {record.status.message}" if outcome is RevisionOutcome.HARMFUL else ""
        table.add_row(
            str(record.number),
            ", ".join(mark(fleet, record.number)),
            f"[{COLOURS.get(outcome, 'yellow')}]{outcome.value}[/]",
            describe_age(record.spec.created, now),
            record.spec.hash[:8],
            _plain(record.spec.author),
            _plain("\n".join(filter(None, (record.spec.reason, why.rstrip(": "))))),
        )
    console.print(table)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def describe_age(created: datetime | None, now: datetime) -> str:
    """Return how long ago something was made, in the largest fitting unit."""
    if created is None:
        return ""
    seconds = max(0, int((now - created).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


async def _compare(target: Target, number: int, other: int | None) -> tuple[int, int, list[Difference]]:
    async with open_fleet(target) as (kube, fleet):
        if other is None:
            numbers = [record.number for record in await list_records(kube, fleet)]
            other = next((known for known in numbers if known < number), None)
        new = flatten_revision((await load_revision(kube, fleet, number)).content)
        if other is None:
            raise NotFound(
                f"Fleet {fleet.namespace}/{fleet.name} has no revision before {number}; name another one",
                reason="RevisionNotFound",
                hint="reference/errors.md#revision-not-found",
            )
        old = flatten_revision((await load_revision(kube, fleet, other)).content)
        return other, number, compare(old, new)


def _print_difference(old: int, new: int, found: list[Difference], output: Format) -> None:
    if output is Format.JSON:
        print_json({"from": old, "to": new, "differences": [difference.to_json() for difference in found]})
    else:
        console.print(f"revision {old} -> {new}", style="dim")
        show_differences(found)
    raise typer.Exit(USAGE if found else 0)
