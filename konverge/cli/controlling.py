"""konverge controller: the long-running process of a fleet."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from konverge.cli.options import Context, FleetName, Kubeconfig, Namespace
from konverge.cli.output import run_async
from konverge.controller.running import run_controller
from konverge.errors import UsageError
from konverge.kube.client import KubeClient
from konverge.lab.pod import PodEnvironment


def controller(
    fleet: FleetName,
    namespace: Namespace = "default",
    listen: Annotated[
        str, typer.Option("--listen", help="HOST:PORT of /healthz, /readyz, /metrics.")
    ] = "127.0.0.1:10254",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Watch the sources once, render once, and keep every proxy of the fleet on the result. Runs until stopped.

    Example: konverge controller --fleet shop -n gateways --listen 0.0.0.0:10254
    """
    logging.getLogger("konverge").setLevel(logging.INFO)
    host, _, port = listen.rpartition(":")
    if not port.isdigit():
        run_async(_refuse(listen))
    hosts = PodEnvironment.read().resolve_hosts(host or "0.0.0.0")  # noqa: S104 - what ":PORT" means everywhere
    run_async(_run(fleet, namespace, hosts, int(port), kubeconfig, context))


async def _refuse(listen: str) -> None:
    raise UsageError(f"--listen {listen!r} is not HOST:PORT")


async def _run(
    fleet: str, namespace: str, hosts: list[str], port: int, kubeconfig: str | None, context: str | None
) -> None:
    async with await KubeClient.connect(kubeconfig, context) as kube:
        await run_controller(kube, fleet, namespace, hosts, port)
