"""konverge controller: the long-running process of a fleet."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Annotated

import typer

from konverge.cli.options import Context, FleetName, Kubeconfig, Namespace
from konverge.cli.output import run_async
from konverge.controller.admission import AdmissionSettings
from konverge.controller.journaling import LogFormat, start_journal
from konverge.controller.running import ControllerSettings, run_controller
from konverge.errors import UsageError
from konverge.kube.client import KubeClient
from konverge.lab.pod import PodEnvironment


def controller(
    fleet: FleetName,
    namespace: Namespace = "default",
    listen: Annotated[
        str, typer.Option("--listen", help="HOST:PORT of the page, /healthz, /readyz, /metrics.")
    ] = "127.0.0.1:10254",
    fleet_file: Annotated[
        Path | None,
        typer.Option("--fleet-file", envvar="KONVERGE_FLEET_FILE", help="ProxyFleet to create or set at the start."),
    ] = None,
    admission_listen: Annotated[
        str, typer.Option("--admission-listen", help="HOST:PORT of the validating webhook; nowhere when left out.")
    ] = "",
    admission_certificate: Annotated[
        Path, typer.Option("--admission-certificate", help="Directory with tls.crt and tls.key of the webhook.")
    ] = Path("/etc/konverge/admission"),
    log_format: Annotated[
        LogFormat, typer.Option("--log-format", help="Lines for people, or one JSON object per line.")
    ] = LogFormat.TEXT,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Watch the sources once, render once, and keep every proxy of the fleet on the result. Runs until stopped.

    Example: konverge controller --fleet shop -n gateways --listen 0.0.0.0:10254
    """
    start_journal(log_format)
    admission = _read_admission(admission_listen, admission_certificate)
    run_async(_run(fleet, namespace, listen, fleet_file, admission, kubeconfig, context))


def _read_admission(listen: str, directory: Path) -> AdmissionSettings | None:
    if not listen:
        return None
    hosts, port = parse_listen(listen, "--admission-listen")
    return AdmissionSettings(tuple(hosts), port, PodEnvironment.read().resolve_path(directory))


def parse_listen(listen: str, option: str = "--listen") -> tuple[list[str], int]:
    """Return the addresses and the port of ``HOST:PORT``; UsageError where it is something else."""
    host, _, port = listen.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise UsageError(f"{option} {listen!r} is not HOST:PORT with a port up to 65535")
    # ":PORT" means every address, as everywhere else.
    return PodEnvironment.read().resolve_hosts(host or "0.0.0.0"), int(port)  # noqa: S104


async def _run(
    fleet: str,
    namespace: str,
    listen: str,
    fleet_file: Path | None,
    admission: AdmissionSettings | None,
    kubeconfig: str | None,
    context: str | None,
) -> None:
    hosts, port = parse_listen(listen)
    settings = ControllerSettings(
        fleet=fleet,
        namespace=namespace,
        hosts=tuple(hosts),
        port=port,
        identity=f"{PodEnvironment.read().name or socket.gethostname()}-{secrets.token_hex(4)}",
        fleet_file=PodEnvironment.read().resolve_path(fleet_file) if fleet_file else None,
        admission=admission,
    )
    async with await KubeClient.connect(kubeconfig, context) as kube:
        await run_controller(kube, settings)
