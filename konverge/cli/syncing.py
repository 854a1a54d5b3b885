"""konverge sync: brings every proxy of a fleet to what the sources say, or shows what that would change."""

from __future__ import annotations

import getpass
import socket
from typing import Annotated, Any

import typer

from konverge.cli.differences import show_differences
from konverge.cli.opening import open_fleet
from konverge.cli.options import Context, FleetName, Kubeconfig, Namespace, Output, build_target
from konverge.cli.output import USAGE, Format, console, errors, print_json, run_async
from konverge.cli.running import FlowResult, run_flow
from konverge.model.target import Target
from konverge.operate.planning import SyncPlan, plan_sync
from konverge.operate.revisions import load_revision

SHOWN_PROXIES = 20
"""Proxies of a wave that are named in a table; JSON names all."""


def sync(
    fleet: FleetName,
    namespace: Namespace = "default",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change; exit code 2 where anything would.")
    ] = False,
    author: Annotated[
        str, typer.Option("--author", help="Recorded with the revision.", show_default="you@this-host")
    ] = "",
    revision: Annotated[int | None, typer.Option("--revision", help="Push this stored revision.")] = None,
    shards: Annotated[
        int, typer.Option("--shards", min=1, help="Sub-flows that the waves after the canary are spread over.")
    ] = 1,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Render the sources once and bring every proxy of the fleet to them, in waves, verified.

    A harmful revision is taken back, and the exit code is 1.

    Examples: konverge sync --fleet shop; konverge sync --fleet shop --dry-run -o json
    """
    target = build_target(fleet, namespace, kubeconfig, context)
    if dry_run:
        plan = run_async(_plan(target, revision), output)
        _print_plan(plan, output)
        raise typer.Exit(USAGE if plan.changes else 0)
    parameters = {
        "target": target.to_json(),
        "author": author or name_author(),
        "revision": revision,
        "shards": shards,
    }
    result = run_async(_run(target, parameters), output)
    if output is Format.JSON:
        print_json({"result": result.value, "flowRun": result.url})
        return
    counts = result.value
    verdict = "" if counts["verdict"] == "Completed" else f" ({counts['verdict']})"
    console.print(f"revision {counts['revision']}{verdict}: {counts['synced']} of {counts['total']} proxies synced")
    console.print(f"flow run: {result.url}", style="dim", soft_wrap=True)


def name_author() -> str:
    """Return who runs the command, as ``user@host``."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user id without a name, as in a container
        return f"unknown@{socket.gethostname()}"


async def _run(target: Target, parameters: dict[str, Any]) -> FlowResult:
    async with open_fleet(target) as (kube, fleet):
        if parameters["revision"] is not None:
            await load_revision(kube, fleet, parameters["revision"])
    return await run_flow("config-sync", parameters, on_start=_show_start, on_progress=_show_progress)


def _show_start(url: str) -> None:
    errors.print(f"flow run: {url}", style="dim", markup=False, highlight=False, soft_wrap=True)


def _show_progress(told: dict[str, Any]) -> None:
    errors.print(str(told.get("message", "")), style="dim", markup=False, highlight=False, soft_wrap=True)


async def _plan(target: Target, revision: int | None) -> SyncPlan:
    async with open_fleet(target) as (kube, fleet):
        return await plan_sync(kube, fleet, revision)


def describe_plan(plan: SyncPlan) -> dict[str, Any]:
    """Return a plan as JSON; nothing of it is secret."""
    return {
        "changes": plan.changes,
        "currentRevision": plan.current,
        "currentHash": plan.current_hash,
        "newHash": plan.revision.hash,
        "revision": plan.revision.number,
        "routes": plan.revision.routes,
        "bytes": len(plan.revision.content),
        "differences": [difference.to_json() for difference in plan.differences],
        "problems": [{"object": str(p.object_ref), "message": p.message} for p in plan.problems],
        "waves": [{"name": w.name, "proxies": [p.name for p in w.proxies]} for w in plan.waves],
        "proxies": [{"name": p.proxy.name, "loadedHash": p.loaded, "push": p.pushed} for p in plan.proxies],
        **({"database": plan.operations.to_json()} if plan.operations is not None else {}),
    }


def _print_plan(plan: SyncPlan, output: Format) -> None:
    if output is Format.JSON:
        print_json(describe_plan(plan))
        return
    for problem in plan.problems:
        errors.print(f"{problem.object_ref}: {problem.message}", style="yellow", markup=False, highlight=False)
    if plan.note:
        errors.print(f"compared with nothing: {plan.note}", style="yellow", markup=False, highlight=False)
    show_differences(plan.differences)
    head = f"{plan.current_hash[:12] or 'nothing'} -> {plan.revision.hash[:12]} ({plan.revision.routes} routes)"
    typer.echo(f"{'changes' if plan.changes else 'no change'}: {head}")
    if plan.operations is not None:
        typer.echo(f"{len(plan.operations.operations)} operations on the database; -o json lists them")
    state = {p.proxy.name: _describe_proxy(p.loaded, p.pushed) for p in plan.proxies}
    for wave in plan.waves:
        typer.echo(f"{wave.name}:")
        for proxy in wave.proxies[:SHOWN_PROXIES]:
            typer.echo(f"  {proxy.name}  {state[proxy.name]}")
        if len(wave.proxies) > SHOWN_PROXIES:
            typer.echo(f"  ... and {len(wave.proxies) - SHOWN_PROXIES} more")


def _describe_proxy(loaded: str, pushed: bool) -> str:
    if not loaded:
        return "does not answer"
    return f"has {loaded[:12]}, gets a push" if pushed else f"has {loaded[:12]} already"
