"""konverge check: is everything as an operation needs it, before it is begun."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from typing import Annotated

import typer

from konverge.checks.all import select_checks
from konverge.checks.gathering import Question, gather_scene
from konverge.checks.registry import Result, Severity, State, run_checks
from konverge.checks.scene import Scene
from konverge.cli.options import Context, FleetName, Kubeconfig, Namespace, Output
from konverge.cli.output import OK, REFUSED, USAGE, Format, console, print_json, run_async
from konverge.errors import DOCS
from konverge.kube.client import KubeClient

MARKS = {
    State.PASSED: "[green]✓[/]",
    State.FAILED: "[red]✗[/]",
    State.SKIPPED: "[dim]-[/]",
    State.UNKNOWN: "[yellow]?[/]",
}


def check(
    fleet: FleetName = "kong",
    namespace: Namespace = "default",
    pre: Annotated[
        bool, typer.Option("--pre", help="Ask what matters before a fleet is set up or a release is migrated.")
    ] = False,
    release: Annotated[str, typer.Option("--release", help="The per-pod release to migrate; implies --pre.")] = "",
    deployment: Annotated[str, typer.Option("--deployment", help="Its Deployment, where it has several.")] = "",
    only: Annotated[list[str] | None, typer.Option("--only", help="Ask this check alone; may be repeated.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 2 for a warning too.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the checks and ask none.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Look at the cluster, Prefect and every proxy, and say what stands in the way, with a way out for each.

    Exits 0 where nothing does, 3 where a check of severity error failed or could not be asked, and with --strict
    2 where there are warnings. Nothing is changed.
    Examples: konverge check --fleet shop; konverge check --pre --release kong -o json; konverge check --list
    """
    chosen = select_checks(before=pre or bool(release))
    if only:
        chosen = [record for record in select_checks(before=True) + select_checks(before=False) if record.id in only]
        if unknown := set(only) - {record.id for record in chosen}:
            raise typer.BadParameter(f"no check is called {', '.join(sorted(unknown))}; see konverge check --list")
        chosen = list({record.id: record for record in chosen}.values())
    if listing:
        _list(output)
        return
    question = Question(namespace, fleet, release, deployment, pre or bool(release), _client_version())
    scene = run_async(_gather(question, kubeconfig, context), output)
    results = run_checks(chosen, scene)
    if output is Format.JSON:
        print_json({"passed": not any(r.refuses for r in results), "checks": [r.to_json() for r in results]})
    else:
        _print(results)
    raise typer.Exit(exit_code(results, strict=strict))


async def _gather(question: Question, kubeconfig: str | None, context: str | None) -> Scene:
    async with await KubeClient.connect(kubeconfig, context) as kube:
        return await gather_scene(kube, question)


def _client_version() -> str:
    try:
        return version("prefect")
    except PackageNotFoundError:
        return ""


def exit_code(results: Sequence[Result], *, strict: bool = False) -> int:
    """Return 3 where an error was found, 2 where a warning was and ``strict`` is set, else 0."""
    if any(result.refuses for result in results):
        return REFUSED
    warned = any(r.severity is Severity.WARNING and r.state in (State.FAILED, State.UNKNOWN) for r in results)
    return USAGE if strict and warned else OK


def _print(results: Sequence[Result]) -> None:
    for category, rows in groupby(results, key=lambda result: result.category):
        console.print(f"[bold]{category}[/]")
        for result in rows:
            _print_result(result)
    wrong = [r for r in results if r.state in (State.FAILED, State.UNKNOWN)]
    counts = ", ".join(
        f"{sum(r.severity is s for r in wrong)} {s.value}s" for s in Severity if s is not Severity.INFO
    )
    passed = sum(r.state is State.PASSED for r in results)
    skipped = sum(r.state is State.SKIPPED for r in results)
    console.print(f"{passed} passed, {counts}, {skipped} skipped")


def _print_result(result: Result) -> None:
    wrong = result.state in (State.FAILED, State.UNKNOWN)
    console.print(f"  {MARKS[result.state]} {result.title}", end="" if result.message and not wrong else "\n")
    if result.message and not wrong:
        console.print(f"  {result.message}", style="dim", markup=False, highlight=False, no_wrap=True)
    if not wrong:
        return
    colour = {"error": "red", "warning": "yellow", "info": "blue"}[result.severity.value]
    console.print(f"      [{colour}]{result.severity.value}[/] ", end="")
    console.print(result.message, markup=False, highlight=False, soft_wrap=True)
    console.print(f"      {result.fix}", style="bold", markup=False, highlight=False, soft_wrap=True)
    console.print(f"      see {DOCS}{result.hint}", style="dim", markup=False, highlight=False)


def _list(output: Format) -> None:
    records = {r.id: r for r in (*select_checks(before=True), *select_checks(before=False))}.values()
    rows = [
        {"id": r.id, "category": r.category, "severity": r.severity.value, "stage": r.stage.value, "title": r.title}
        for r in records
    ]
    if output is Format.JSON:
        print_json({"checks": rows})
        return
    for row in rows:
        console.print(f"{row['id']:22}{row['severity']:9}{row['stage']:8}{row['title']}", highlight=False)
