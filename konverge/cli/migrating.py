"""konverge migrate: a release of per-pod controllers becomes one fleet."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from konverge.cli.options import Context, Kubeconfig, Namespace, Output, build_target
from konverge.cli.output import Format, console, print_json, run_async
from konverge.cli.running import FlowResult, run_flow
from konverge.decide.legacy import LegacyRelease, refuse_unhealthy
from konverge.errors import CheckRefused, KonvergeError, NotFound
from konverge.kube.client import KubeClient
from konverge.model.migration import Migration, MigrationPhase, MigrationSpec, Step, StepState
from konverge.model.target import Target
from konverge.operate.fleets import require_crds
from konverge.operate.migrating import discover_release
from konverge.operate.migrations import apply_migration, find_migration

migrate_app = typer.Typer(no_args_is_help=True, help="Move a release of per-pod controllers to one fleet.")

Release = Annotated[str, typer.Argument(help="Name of the Helm release of the per-pod installation.")]
FleetOption = Annotated[
    str, typer.Option("--fleet", help="Name of the new fleet.", show_default="the release's name")
]
REFRESH = 0.5
MARKS = {
    StepState.PENDING: "[dim]·[/]",
    StepState.RUNNING: "[yellow]▶[/]",
    StepState.DONE: "[green]✓[/]",
    StepState.FAILED: "[red]✗[/]",
}


@migrate_app.command()
def plan(
    release: Release,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Show what would be migrated and refuse (3) what cannot be; nothing is touched.

    Example: konverge migrate plan kong -n gateways
    """
    found = run_async(_plan(release, build_target(release, namespace, kubeconfig, context)), output)
    if output is Format.JSON:
        print_json(
            {
                "release": found.name,
                "deployment": found.deployment,
                "replicas": found.replicas,
                "service": found.service,
                "ingressClass": found.ingress_class,
                "steps": [s.value for s in Step],
            }
        )
        return
    console.print(
        f"Release [bold]{found.name}[/]: Deployment {found.deployment}, {found.replicas} proxies with"
        f" {found.controllers} controllers, traffic through Service {found.service}"
    )
    console.print(f"Steps: {' → '.join(step.value for step in Step)}")


async def _plan(release: str, target: Target) -> LegacyRelease:
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        await require_crds(kube)
        found = await discover_release(kube, target.namespace, release)
        refuse_unhealthy(found)
        return found


@migrate_app.command(name="run")
def migrate_run(
    release: Release,
    fleet: FleetOption = "",
    namespace: Namespace = "default",
    soak: Annotated[float, typer.Option("--soak", min=0, help="Seconds to watch each step of the shift.")] = 2.0,
    drain: Annotated[float, typer.Option("--drain", min=1, help="Longest wait for long requests, seconds.")] = 120.0,
    deployment: Annotated[str, typer.Option("--deployment", help="Legacy Deployment, where there are several.")] = "",
    image: Annotated[str, typer.Option("--image", help="Image of the new proxies.")] = "kong:3.9",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Migrate under live traffic: deploy the fleet, sync, verify, shift, drain. A failure brings the traffic back.

    Started again it goes on where it was. Ctrl-C rolls back.
    Example: konverge migrate run kong --fleet shop -n gateways --soak 10
    """
    target = build_target(fleet or release, namespace, kubeconfig, context)
    spec = MigrationSpec(
        fleet=target.fleet,
        release=release,
        deployment=deployment,
        soak_seconds=soak,
        drain_seconds=drain,
        image=image,
    )
    result, migration = run_async(_migrate(target, spec, live=output is Format.TABLE), output)
    if output is Format.JSON:
        print_json({"migration": migration.to_json(), "flowRun": result.url})


async def _migrate(target: Target, spec: MigrationSpec, *, live: bool) -> tuple[FlowResult, Migration]:
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        await require_crds(kube)
        before = await find_migration(kube, spec.release, target.namespace)
        if before is None:
            refuse_unhealthy(await discover_release(kube, target.namespace, spec.release, spec.deployment))
        elif before.status.phase in (MigrationPhase.COMPLETED, MigrationPhase.ROLLED_BACK):
            raise CheckRefused(
                f"FleetMigration {target.namespace}/{before.name} is {before.status.phase.value}; to migrate once"
                f" more, delete it: kubectl delete fleetmigration {before.name} -n {target.namespace}",
                reason="MigrationEnded",
                hint="reference/errors.md#migration-ended",
            )
        migration = await apply_migration(kube, spec.release, target.namespace, spec)
        parameters = {"target": target.to_json(), "migration": migration.name}
        work = asyncio.create_task(run_flow("legacy-migration", parameters))
        await follow_migration(kube, migration, work, live=live)
        result = await work
        ended = await find_migration(kube, spec.release, target.namespace)
        return result, ended or migration


async def follow_migration(kube: KubeClient, migration: Migration, work: asyncio.Task[Any], *, live: bool) -> None:
    """Show the journal while the flow runs; what is shown is read from Kubernetes, not from the flow."""
    if not live:
        await asyncio.wait([work])
        return
    with Live(render_migration(migration), console=console, refresh_per_second=8, transient=False) as screen:
        while not work.done():
            await asyncio.wait([work], timeout=REFRESH)
            with suppress(KonvergeError):
                current = await find_migration(kube, migration.name, migration.namespace)
                if current is not None:
                    screen.update(render_migration(current))


def render_migration(migration: Migration) -> Group:
    """Return the journal as lines: one per step, with its time and what it did."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(width=1)
    table.add_column(width=9)
    table.add_column(justify="right", width=7)
    table.add_column(overflow="fold")
    for step in Step:
        record = migration.status.record(step)
        seconds = f"{record.seconds:.1f}s" if record.seconds is not None else ""
        table.add_row(MARKS[record.state], step.value, seconds, Text(record.message))
    title = Text.assemble(
        ("migration ", "bold"),
        migration.name,
        "  ",
        (migration.status.phase.value, "bold"),
        "  ",
        (migration.status.run, "dim"),
    )
    return Group(title, table)


@migrate_app.command(name="status")
def migrate_status(
    release: Release,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the journal of a migration.

    Example: konverge migrate status kong -n gateways
    """
    migration = run_async(_find(build_target(release, namespace, kubeconfig, context)), output)
    if output is Format.JSON:
        print_json(migration)
    else:
        console.print(render_migration(migration))


async def _find(target: Target) -> Migration:
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        migration = await find_migration(kube, target.fleet, target.namespace)
        if migration is None:
            await require_crds(kube)
    if migration is None:
        raise NotFound(
            f"No FleetMigration {target.namespace}/{target.fleet}",
            reason="MigrationNotFound",
            hint="reference/errors.md#migration-not-found",
        )
    return migration


@migrate_app.command()
def rollback(
    release: Release,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Bring the traffic back to the legacy proxies, from any point, without losing a request.

    Example: konverge migrate rollback kong -n gateways
    """
    target = build_target(release, namespace, kubeconfig, context)
    result = run_async(_roll_back(target), output)
    if output is Format.JSON:
        print_json({"result": result.value, "flowRun": result.url})
    else:
        console.print(result.value, markup=False)
        console.print(f"flow run: {result.url}", style="dim")


async def _roll_back(target: Target) -> FlowResult:
    migration = await _find(target)
    parameters = {"target": target.replace(fleet=migration.spec.fleet).to_json(), "migration": migration.name}
    return await run_flow("migration-rollback", parameters)
