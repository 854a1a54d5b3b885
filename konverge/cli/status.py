"""konverge status: every fleet or every proxy at a glance."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from konverge.cli.options import Context, Kubeconfig, Namespace, Output
from konverge.cli.output import USAGE, Format, console, print_json, run_async
from konverge.kube.client import KubeClient
from konverge.model.fleet import Fleet
from konverge.model.proxy import ProxyStatus
from konverge.operate.fleets import list_fleets, list_instances, load_fleet, parse_fleet

State = tuple[Fleet, dict[str, ProxyStatus]]


def status(
    fleet: Annotated[str | None, typer.Argument(help="Fleet to look at; all fleets when left out.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Show which configuration every proxy has loaded, whether it is up to date, its mTLS, and what is wrong.

    Exits 2 where a proxy is not in sync or carries no traffic.
    Examples: konverge status; konverge status shop -n gateways -o json
    """
    states = run_async(_read(fleet, namespace, kubeconfig, context), output)
    if output is Format.JSON:
        print_json({"fleets": [_as_json(state) for state in states]})
    elif not states:
        console.print("No ProxyFleet in this cluster. `konverge migrate run --help` tells how to make one.")
    else:
        for state in states:
            _print_fleet(state)
    if any(not instance.traffic_ready or not instance.synced for _, items in states for instance in items.values()):
        raise typer.Exit(USAGE)


async def _read(fleet: str | None, namespace: str, kubeconfig: str | None, context: str | None) -> list[State]:
    async with await KubeClient.connect(kubeconfig, context) as kube:
        if fleet is not None:
            fleets = [await load_fleet(kube, fleet, namespace)]
        else:
            fleets = [parse_fleet(body) for body in await list_fleets(kube)]
        return [(item, await list_instances(kube, item)) for item in fleets]


def _as_json(state: State) -> dict[str, Any]:
    fleet, instances = state
    return {
        "name": fleet.name,
        "namespace": fleet.namespace,
        "status": fleet.status.to_json(),
        "proxies": {name: instance.to_json() for name, instance in sorted(instances.items())},
    }


def _print_fleet(state: State) -> None:
    fleet, instances = state
    now, counts = datetime.now(UTC), fleet.status.counts
    console.print(
        f"[bold]{fleet.namespace}/{fleet.name}[/]  revision {fleet.status.current_revision}"
        f" (last good {fleet.status.last_good_revision})  {counts.synced}/{counts.total} synced,"
        f" {counts.ready} serving, {counts.quarantined} quarantined"
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("PROXY", "PHASE", "REV", "SYNCED", "MTLS", "WHY NOT"):
        table.add_column(column, overflow="fold" if column in ("PROXY", "WHY NOT") else "ellipsis")
    for name, instance in sorted(instances.items()):
        table.add_row(*_row(name, instance, now))
    console.print(table)


def _row(name: str, instance: ProxyStatus, now: datetime) -> tuple[str, ...]:
    loaded = str(instance.loaded_revision) if instance.loaded_revision is not None else "-"
    why = "" if instance.traffic_ready else f"{instance.reason}: {instance.message}".rstrip(": ")
    colour = "green" if instance.traffic_ready else "red"
    return (
        name,
        f"[{colour}]{instance.phase.value}[/]",
        loaded,
        "yes" if instance.synced else "[red]no[/]",
        describe_remaining(instance.mtls.expires, now),
        why,
    )


def describe_remaining(expires: datetime | None, now: datetime) -> str:
    """Return how long a certificate is still valid, in the largest fitting unit."""
    if expires is None:
        return "[red]none[/]"
    hours = (expires - now).total_seconds() / 3600
    if hours <= 0:
        return "[red]expired[/]"
    return f"{hours / 24:.0f}d" if hours >= 48 else f"{hours:.0f}h"
