"""konverge rollback: back to a stored revision, and forward again."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from typing import Annotated, Any

import typer

from konverge.cli.differences import show_differences
from konverge.cli.opening import open_fleet
from konverge.cli.options import Context, FleetName, Kubeconfig, Namespace, Output, build_target
from konverge.cli.output import USAGE, Format, console, print_json, run_async
from konverge.cli.running import FlowResult, run_flow
from konverge.errors import UsageError
from konverge.kube.client import KubeClient
from konverge.model.condition import ObjectRef
from konverge.model.fleet import Fleet
from konverge.model.target import Target
from konverge.operate.events import Recorder
from konverge.operate.orchestrator import ensure_server
from konverge.operate.rolling_back import RollbackPlan, number_in_force, pin_revision, plan_rollback
from konverge.operate.syncing import refuse_paused


def rollback(
    fleet: FleetName,
    namespace: Namespace = "default",
    to: Annotated[
        int | None, typer.Option("--to", metavar="N", help="The revision to go back to.", show_default="last good")
    ] = None,
    release: Annotated[bool, typer.Option("--release", help="Follow the sources again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change; 2 when anything.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even to a revision that is known to be harmful.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Go back to a stored revision and stay there, whatever the sources say, until it is released.

    The revision is pinned (spec.pinnedRevision), so that neither controller nor flow overrides it, and pushed in
    waves. Exits 3 where the revision is known to be harmful.
    Examples: konverge rollback --fleet shop; konverge rollback --fleet shop --to 9; ... --release
    """
    target = build_target(fleet, namespace, kubeconfig, context)
    if release:
        if to is not None or force:
            raise typer.BadParameter("--release takes neither --to nor --force")
        _release(target, output, dry_run=dry_run, yes=yes)
        return
    plan = run_async(_plan(target, to, force=force), output)
    if output is Format.TABLE:
        _print_plan(plan)
    if dry_run:
        if output is Format.JSON:
            print_json(_as_json(plan))
        raise typer.Exit(USAGE if plan.changes else 0)
    _ask(f"Push revision {plan.target.number} to every proxy of {fleet} and pin it?", yes=yes, output=output)
    result = run_async(_roll_back(target, plan), output)
    _report(result, {**_as_json(plan), "pinned": plan.target.number}, output)


def _as_json(plan: RollbackPlan) -> dict[str, Any]:
    return {
        "changes": plan.changes,
        "from": plan.present,
        "to": plan.target.number,
        "hash": plan.target.hash,
        "outcome": plan.record.status.outcome.value,
        "differences": [difference.to_json() for difference in plan.differences],
        "note": plan.note,
    }


def _print_plan(plan: RollbackPlan) -> None:
    status = plan.record.status
    console.print(
        f"revision {plan.present} -> {plan.target.number} ({status.outcome.value}, {plan.target.routes} routes,"
        f" hash {plan.target.hash[:12]})"
    )
    if plan.note:
        console.print(plan.note, style="yellow", markup=False)
    elif plan.changes:
        show_differences(plan.differences)


def _ask(question: str, *, yes: bool, output: Format) -> None:
    """Ask before anything is changed; UsageError where nobody can answer."""
    if yes:
        return
    if output is Format.JSON or not sys.stdin.isatty():
        run_async(_refuse_silence(), output)
    typer.confirm(question, abort=True)


async def _refuse_silence() -> None:
    raise UsageError("Nobody can be asked here; --yes goes on without", hint="howto/roll-back.md#go-back")


async def _plan(target: Target, to: int | None, *, force: bool) -> RollbackPlan:
    async with open_fleet(target) as (kube, fleet):
        refuse_paused(fleet)
        return await plan_rollback(kube, fleet, to, force=force)


async def _roll_back(target: Target, plan: RollbackPlan) -> FlowResult:
    number, server = plan.target.number, await ensure_server()  # before anything is changed
    author = f"konverge rollback to {number} by {read_user()}"
    async with open_fleet(target) as (kube, fleet):
        await pin_revision(kube, fleet, number)
        await _tell(
            kube, fleet, "RevisionRolledBack", f"revision {plan.present} -> {number}, pinned by {read_user()}"
        )
    return await run_flow(
        "config-sync", {"target": target.to_json(), "author": author, "revision": number}, server=server
    )


def _release(target: Target, output: Format, *, dry_run: bool, yes: bool) -> None:
    pinned = run_async(_read_pin(target), output)
    if dry_run or not pinned:
        if output is Format.JSON:
            print_json({"changes": bool(pinned), "pinned": pinned})
        else:
            console.print(f"revision {pinned} is pinned" if pinned else "no revision is pinned")
        raise typer.Exit(USAGE if dry_run and pinned else 0)
    _ask(f"Release revision {pinned} and push what the sources say now?", yes=yes, output=output)
    _report(run_async(_follow_sources(target), output), {"from": pinned, "pinned": 0}, output)


async def _read_pin(target: Target) -> int:
    async with open_fleet(target) as (_, fleet):
        refuse_paused(fleet)
        return fleet.spec.pinned_revision


async def _follow_sources(target: Target) -> FlowResult:
    server = await ensure_server()
    async with open_fleet(target) as (kube, fleet):
        number = number_in_force(fleet)
        await pin_revision(kube, fleet, 0)
        await _tell(kube, fleet, "RevisionReleased", f"revision {number} is no longer pinned; by {read_user()}")
    return await run_flow("config-sync", {"target": target.to_json(), "author": read_user()}, server=server)


async def _tell(kube: KubeClient, fleet: Fleet, reason: str, message: str) -> None:
    recorder = Recorder(kube, component="konverge")
    ref = ObjectRef(kind="ProxyFleet", name=fleet.name, namespace=fleet.namespace, uid=fleet.uid)
    recorder.record(ref, reason, message, "Normal")
    await recorder.flush()


def read_user() -> str:
    """Return who runs this command: name@host; the number of the user where it has no name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def _report(result: FlowResult, told: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        print_json({**told, "result": result.value, "flowRun": result.url})
        return
    counts = result.value
    console.print(f"revision {counts['revision']}: {counts['synced']} of {counts['total']} proxies synced")
    if told["pinned"]:
        console.print("pinned; `konverge rollback --release` follows the sources again", style="dim")
    console.print(f"flow run: {result.url}", style="dim")
