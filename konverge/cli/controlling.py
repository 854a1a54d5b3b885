"""konverge controller: the long-running process of a fleet."""

from __future__ import annotations

import logging
import secrets
import socket
from pathlib import Path
from typing import Annotated

import typer

from konverge.cli.options import Context, FleetName, Kubeconfig, Namespace
from konverge.cli.output import run_async
from konverge.controller.running import ControllerSettings, run_controller
from konverge.errors import UsageError
from konverge.kube.client import KubeClient
from konverge.lab.pod import PodEnvironment


def controller(
    fleet: FleetName,
    namespace: Namespace = "default",
    listen: Annotated[
        str, typer.Option("--listen", help="HOST:PORT of /healthz, /readyz, /metrics.")
    ] = "127.0.0.1:10254",
    fleet_file: Annotated[
        Path | None,
        typer.Option("--fleet-file", envvar="KONVERGE_FLEET_FILE", help="ProxyFleet to create or set at the start."),
    ] = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Watch the sources once, render once, and keep every proxy of the fleet on the result. Runs until stopped.

    Example: konverge controller --fleet shop -n gateways --listen 0.0.0.0:10254
    """
    logging.getLogger("konverge").setLevel(logging.INFO)
    run_async(_run(fleet, namespace, listen, fleet_file, kubeconfig, context))


def parse_listen(listen: str) -> tuple[list[str], int]:
    """Return the addresses and the port of ``HOST:PORT``; UsageError where it is something else."""
    host, _, port = listen.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise UsageError(f"--listen {listen!r} is not HOST:PORT with a port up to 65535")
    # ":PORT" means every address, as everywhere else.
    return PodEnvironment.read().resolve_hosts(host or "0.0.0.0"), int(port)  # noqa: S104


async def _run(
    fleet: str, namespace: str, listen: str, fleet_file: Path | None, kubeconfig: str | None, context: str | None
) -> None:
    hosts, port = parse_listen(listen)
    settings = ControllerSettings(
        fleet=fleet,
        namespace=namespace,
        hosts=tuple(hosts),
        port=port,
        identity=f"{PodEnvironment.read().name or socket.gethostname()}-{secrets.token_hex(4)}",
        fleet_file=fleet_file,
    )
    async with await KubeClient.connect(kubeconfig, context) as kube:
        await run_controller(kube, settings)
