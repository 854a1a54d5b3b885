"""konverge sync and konverge history."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from konverge.cli.options import Context, FleetName, Kubeconfig, Namespace, Output, build_target
from konverge.cli.output import USAGE, Format, console, print_json, run_async
from konverge.cli.running import FlowResult, run_flow
from konverge.decide.waving import plan_waves
from konverge.kube.client import KubeClient
from konverge.model.revision import RevisionSpec
from konverge.model.target import Target
from konverge.operate.discovering import discover_proxies
from konverge.operate.fleets import load_fleet
from konverge.operate.rendering import compile_revision, gather_sources
from konverge.operate.revisions import list_revisions


def sync(
    fleet: FleetName,
    namespace: Namespace = "default",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan; 2 when it would change anything.")
    ] = False,
    author: Annotated[str, typer.Option("--author", help="Recorded with the revision.")] = "",
    revision: Annotated[int | None, typer.Option("--revision", help="Push this stored revision.")] = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Render the sources once and bring every proxy of the fleet to them, in waves, verified.

    Examples: konverge sync --fleet shop; konverge sync --fleet shop --dry-run -o json
    """
    target = build_target(fleet, namespace, kubeconfig, context)
    if dry_run:
        plan = run_async(_plan(target), output)
        _print_plan(plan, output)
        raise typer.Exit(USAGE if plan["changes"] else 0)
    parameters = {"target": target.to_json(), "author": author, "revision": revision}
    result = run_async(_run(target, parameters), output)
    if output is Format.JSON:
        print_json({"result": result.value, "flowRun": result.url})
    else:
        counts = result.value
        console.print(f"revision {counts['revision']}: {counts['synced']} of {counts['total']} proxies synced")
        console.print(f"flow run: {result.url}", style="dim")


async def _run(target: Target, parameters: dict[str, Any]) -> FlowResult:
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        await load_fleet(kube, target.fleet, target.namespace)
    return await run_flow("config-sync", parameters)


async def _plan(target: Target) -> dict[str, Any]:
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        draft, rendered = compile_revision(fleet, await gather_sources(kube))
        waves = plan_waves(await discover_proxies(kube, fleet), fleet.spec.rollout)
        return {
            "changes": draft.hash != fleet.status.current_hash,
            "currentHash": fleet.status.current_hash,
            "newHash": draft.hash,
            "routes": draft.routes,
            "bytes": len(draft.content),
            "problems": [{"object": str(p.object_ref), "message": p.message} for p in rendered.problems],
            "waves": [{"name": w.name, "proxies": [p.name for p in w.proxies]} for w in waves],
        }


def _print_plan(plan: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        print_json(plan)
        return
    change = "changes" if plan["changes"] else "no change"
    console.print(f"{change}: {plan['currentHash'] or 'nothing'} -> {plan['newHash']} ({plan['routes']} routes)")
    for wave in plan["waves"]:
        console.print(f"  {wave['name']}: {', '.join(wave['proxies'])}")
    for problem in plan["problems"]:
        console.print(f"  [yellow]{problem['object']}[/]: ", end="")
        console.print(problem["message"], markup=False)


def history(
    fleet: FleetName,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """List the stored revisions of a fleet, newest first.

    Example: konverge history --fleet shop
    """
    current, revisions = run_async(_history(build_target(fleet, namespace, kubeconfig, context)), output)
    if output is Format.JSON:
        print_json({"current": current, "revisions": [r.to_json() for r in revisions]})
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("REVISION", "HASH", "ROUTES", "BYTES", "CREATED", "AUTHOR"):
        table.add_column(column)
    for item in revisions:
        mark = "* " if item.number == current else "  "
        created = f"{item.created:%Y-%m-%d %H:%M:%S}" if item.created else ""
        table.add_row(f"{mark}{item.number}", item.hash[:12], str(item.routes), str(item.size), created, item.author)
    console.print(table)


async def _history(target: Target) -> tuple[int, list[RevisionSpec]]:
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        return fleet.status.current_revision, await list_revisions(kube, fleet)
