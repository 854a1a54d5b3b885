"""konverge drift: which proxies run something else than they should, and what."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from konverge.cli.options import Context, FleetName, Kubeconfig, Namespace, Output, build_target
from konverge.cli.output import USAGE, Format, console, print_json, run_async
from konverge.cli.running import run_flow
from konverge.kube.client import KubeClient
from konverge.model.drift import DriftReport, ProxyDrift
from konverge.model.target import Target
from konverge.operate.connecting import open_gateways
from konverge.operate.drifting import audit_fleet, describe_drift, open_reader
from konverge.operate.fleets import load_fleet

SIGNS = {"added": "+", "missing": "-", "changed": "~"}


def drift(
    fleet: FleetName,
    namespace: Namespace = "default",
    heal: Annotated[
        bool, typer.Option("--heal/--report", help="Bring drifted proxies back, whatever spec.drift says.")
    ] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Compare what every proxy has loaded with what it should have; exits 2 where one drifted.

    Of a fleet with a database the entities with its tag are compared.

    Hashes are compared; entities are paged, slowly, of proxies that differ only. + is loaded and should not be,
    - is missing, ~ is changed; secrets are never shown. --heal runs the flow drift-audit, --report changes nothing.
    Examples: konverge drift --fleet shop; konverge drift --fleet shop --heal -o json
    """
    target = build_target(fleet, namespace, kubeconfig, context)
    report, url = run_async(_heal(target) if heal else _audit(target), output)
    if output is Format.JSON:
        print_json({"drifted": bool(report.drifted), **report.to_json(), **({"flowRun": url} if url else {})})
    else:
        _print_report(report)
        if url:
            console.print(f"flow run: {url}", style="dim")
    raise typer.Exit(USAGE if report.drifted else 0)


async def _audit(target: Target) -> tuple[DriftReport, str]:
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        async with open_gateways(kube, fleet) as gateways, open_reader(kube, fleet) as read:
            return await audit_fleet(kube, fleet, gateways, read), ""


async def _heal(target: Target) -> tuple[DriftReport, str]:
    parameters: dict[str, Any] = {"target": target.to_json(), "healing": True}
    result = await run_flow("drift-audit", parameters)
    return DriftReport.model_validate(result.value), result.url


def _print_report(report: DriftReport) -> None:
    if not report.revision:
        console.print("nothing was synced yet: there is nothing to compare with")
        return
    drifted = len(report.drifted)
    console.print(
        f"revision {report.revision}: {drifted} of {len(report.proxies)} proxies drifted"
        f" (spec.drift: {report.policy})"
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("PROXY", "WHAT", "WHY"):
        table.add_column(column, overflow="fold")
    for row in report.proxies:
        colour = "red" if row.drift.kind.drifted else "green"
        table.add_row(row.proxy, f"[{colour}]{row.drift.kind.value}[/]", describe_drift(row).replace("[", r"\["))
    console.print(table)
    for row in report.drifted:
        _print_entities(row)


def _print_entities(row: ProxyDrift) -> None:
    typer.echo(f"{row.proxy}:" + (f" {row.note}" if row.note else ""))
    for difference in row.differences:
        line = f"  {SIGNS[difference.change]} {difference.entity}"
        if difference.field:
            line += f": {difference.field} is {difference.loaded}, should be {difference.desired}"
        typer.echo(line)
    if row.uncounted:
        typer.echo(f"  ... and {row.uncounted} more differences")
