"""konverge certs: the certificates of a fleet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from konverge.cli.options import Context, FleetName, Kubeconfig, Namespace, Output, build_target
from konverge.cli.output import Format, console, print_json, run_async
from konverge.cli.running import FlowResult, run_flow
from konverge.cli.status import describe_remaining
from konverge.kube.client import KubeClient
from konverge.model.rotation import CertificateView, RotationKind
from konverge.model.target import Target
from konverge.operate.fleets import load_fleet
from konverge.operate.identities import load_keys
from konverge.operate.rotating import list_certificates

certs_app = typer.Typer(no_args_is_help=True, help="The certificates of a fleet: look at them, rotate them.")


@certs_app.command(name="status")
def certs_status(
    fleet: FleetName,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Show subject, issuer and expiry of every certificate of a fleet.

    Example: konverge certs status --fleet shop -o json
    """
    views = run_async(_list(build_target(fleet, namespace, kubeconfig, context)), output)
    if output is Format.JSON:
        print_json({"certificates": [view.to_json() for view in views]})
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("ROLE", "SUBJECT", "VALID FOR", "RENEW AT", "DUE"):
        table.add_column(column, overflow="fold")
    now = datetime.now(UTC)
    for view in views:
        due = "[yellow]yes[/]" if view.due else "no"
        remaining = describe_remaining(view.expires, now)
        table.add_row(view.role, view.subject, remaining, f"{view.renew_at:%Y-%m-%d %H:%M}", due)
    console.print(table)


async def _list(target: Target) -> list[CertificateView]:
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        return list_certificates(await load_keys(kube, await load_fleet(kube, target.fleet, target.namespace)))


@certs_app.command()
def rotate(
    fleet: FleetName,
    namespace: Namespace = "default",
    authority: Annotated[
        bool, typer.Option("--authority", help="Rotate the authority, not only the leaves.")
    ] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Rotate the leaves now, or with --authority the whole chain of trust, without a failed call.

    Example: konverge certs rotate --fleet shop --authority
    """
    kind = RotationKind.AUTHORITY if authority else RotationKind.LEAF
    target = build_target(fleet, namespace, kubeconfig, context)
    _print_timeline(run_async(_rotate(target, kind), output), output)


@certs_app.command()
def renew(
    fleet: FleetName,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Renew what is due: what has passed two thirds of its lifetime. The schedule runs the same.

    Example: konverge certs renew --fleet shop
    """
    target = build_target(fleet, namespace, kubeconfig, context)
    _print_timeline(run_async(_rotate(target, RotationKind.AUTO), output), output)


async def _rotate(target: Target, kind: RotationKind) -> FlowResult:
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        await load_fleet(kube, target.fleet, target.namespace)
    return await run_flow("cert-rotation", {"target": target.to_json(), "kind": kind.value})


def _print_timeline(result: FlowResult, output: Format) -> None:
    if output is Format.JSON:
        print_json({"steps": result.value, "flowRun": result.url})
        return
    for step, message in result.value.items():
        console.print(f"[green]{step:11}[/]", end=" ")
        console.print(message, markup=False, highlight=False)
    if not result.value:
        console.print("nothing is due")
    console.print(f"flow run: {result.url}", style="dim")
