"""konverge certs: the certificates of a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from konverge.cli.certificates import (
    Survey,
    print_progress,
    print_survey,
    print_timeline,
    show_rotation,
)
from konverge.cli.options import Context, FleetName, Kubeconfig, Namespace, Output, build_target
from konverge.cli.output import USAGE, Format, print_json, run_async
from konverge.cli.running import FlowResult, run_flow
from konverge.decide.rotating import find_revoked
from konverge.errors import UsageError
from konverge.kube.client import KubeClient
from konverge.model.rotation import RotationKind, RotationReport, RotationState
from konverge.model.target import Target
from konverge.operate.discovering import discover_proxies
from konverge.operate.fleets import load_fleet
from konverge.operate.identities import load_controller, load_keys
from konverge.operate.observing import Observer, list_certificates, list_names, list_revocable

certs_app = typer.Typer(no_args_is_help=True, help="The certificates of a fleet: look at them, rotate them.")


@certs_app.command(name="status")
def certs_status(
    fleet: FleetName,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the stored certificates, and what each proxy really shows and whom it lets in, by handshakes.

    Exits 2 where something is due, or a proxy runs with other files than those that are stored for it.
    Examples: konverge certs status --fleet shop; konverge certs status --fleet shop -n gateways -o json
    """
    survey = run_async(_survey(build_target(fleet, namespace, kubeconfig, context)), output)
    if output is Format.JSON:
        print_json(survey.to_json())
    else:
        print_survey(survey)
    if not survey.sound:
        raise typer.Exit(USAGE)


async def _survey(target: Target) -> Survey:
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        keys = await load_keys(kube, fleet)
        seen = await Observer.of(keys).look(await discover_proxies(kube, fleet))
        return Survey(tuple(list_certificates(keys)), tuple(seen), list_names(keys))


@certs_app.command()
def rotate(
    fleet: FleetName,
    namespace: Namespace = "default",
    authority: Annotated[
        bool, typer.Option("--authority", help="Rotate the authority, not only the leaves.")
    ] = False,
    emergency: Annotated[
        bool, typer.Option("--emergency", help="Something is compromised: no windows, nobody is waited for.")
    ] = False,
    revoke: Annotated[
        str,
        typer.Option("--revoke", metavar="SERIAL|FINGERPRINT|authority", help="What an emergency takes access from."),
    ] = "",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Rotate the leaves now, or with --authority the whole chain of trust, without a failed call.

    With --emergency the authority of what is revoked is replaced on the shortest ordered way; a proxy that is out
    of reach is taken out of traffic instead of being waited for. Exits 2 where a proxy still owes a proof.
    Examples: konverge certs rotate --fleet shop --authority;
    konverge certs rotate --fleet shop --emergency --revoke 3f9ac2; konverge certs rotate --fleet shop --emergency
    --revoke authority
    """
    target = build_target(fleet, namespace, kubeconfig, context)
    if emergency:
        parameters = run_async(_prepare_emergency(target, revoke), output)
    elif revoke:
        run_async(_refuse_revocation(), output)
    else:
        parameters = {"kind": (RotationKind.AUTHORITY if authority else RotationKind.LEAF).value}
    _finish(run_async(_rotate(target, parameters, output), output), output)


async def _refuse_revocation() -> None:
    raise UsageError("--revoke is part of an emergency: add --emergency", hint="howto/rotate-certificates.md")


async def _prepare_emergency(target: Target, revoke: str) -> dict[str, Any]:
    """Name the compromised authority once, so that a run that is started again means the same one."""
    if not revoke:
        raise UsageError(
            "--emergency needs --revoke: a serial or fingerprint of `konverge certs status`, or authority",
            hint="howto/rotate-certificates.md",
        )
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        keys = await load_keys(kube, await load_fleet(kube, target.fleet, target.namespace))
    current = keys.authorities.current.certificate.fingerprint
    return {"kind": RotationKind.EMERGENCY.value, "revoke": find_revoked(revoke, list_revocable(keys), current)}


@certs_app.command()
def renew(
    fleet: FleetName,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Renew what is due, finish what was begun, and give proxies what they missed. The schedule runs the same.

    Example: konverge certs renew --fleet shop
    """
    target = build_target(fleet, namespace, kubeconfig, context)
    _finish(run_async(_rotate(target, {"kind": RotationKind.AUTO.value}, output), output), output)


@certs_app.command(name="export-ca")
def export_ca(
    fleet: FleetName,
    namespace: Namespace = "default",
    file: Annotated[
        Path | None, typer.Option("--file", help="Where to write it.", show_default="standard output")
    ] = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Write the authorities that proxies of the fleet are verified with, as PEM; it holds no key.

    Example: konverge certs export-ca --fleet shop > ca.pem; curl --cacert ca.pem --cert me.pem https://...:8444/status
    """
    pem = run_async(_read_bundle(build_target(fleet, namespace, kubeconfig, context)))
    if file is None:
        typer.echo(pem.decode("ascii"), nl=False)
        return
    file.write_bytes(pem)


async def _read_bundle(target: Target) -> bytes:
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        return (await load_controller(kube, fleet)).bundle.pem


async def _rotate(target: Target, parameters: dict[str, Any], output: Format) -> FlowResult:
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        await load_fleet(kube, target.fleet, target.namespace)
    on_progress = print_progress if output is Format.TABLE else None
    return await run_flow("cert-rotation", {"target": target.to_json(), **parameters}, on_progress=on_progress)


def _finish(result: FlowResult, output: Format) -> None:
    report = RotationReport.model_validate(result.value)
    if output is Format.JSON:
        print_json(show_rotation(report, result.url))
    else:
        print_timeline(report, result.url)
    if report.state is RotationState.WAITING:
        raise typer.Exit(USAGE)
