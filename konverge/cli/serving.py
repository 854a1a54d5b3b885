"""konverge server: the local Prefect server."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from konverge.cli.options import FleetName, Namespace, Output, build_target
from konverge.cli.output import FAILED, Format, console, errors, print_json, run_async
from konverge.errors import FinalError, Unavailable
from konverge.operate.orchestrator import (
    PrefectServer,
    client_environment,
    default_home,
    ensure_server,
    find_server,
    is_deployed,
    stop_server,
)

LOOK_SECONDS = 2.0
"""Between two looks whether a server answers."""

server_app = typer.Typer(no_args_is_help=True, help="The Prefect server that records the flow runs.")


@server_app.command()
def start(
    port: Annotated[int | None, typer.Option("--port", help="Port on 127.0.0.1.", show_default="4200")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Start the local server, or find the one that runs.

    Example: konverge server start
    """
    server = run_async(ensure_server(port=port), output)
    if output is Format.JSON:
        print_json({"url": server.url, "ui": server.ui, "pid": server.pid})
    else:
        console.print(f"Prefect server: {server.ui}")


@server_app.command()
def status(output: Output = Format.TABLE) -> None:
    """Tell whether a server answers; 1 when none does.

    Example: konverge server status -o json
    """
    server = run_async(find_server(), output)
    if output is Format.JSON:
        print_json({"running": server is not None, "url": server.url if server else None})
    else:
        console.print(f"running at {server.ui}" if server else f"not running (home {default_home()})")
    if server is None:
        raise typer.Exit(FAILED)


@server_app.command()
def stop(output: Output = Format.TABLE) -> None:
    """Stop the local server; its records stay.

    Example: konverge server stop
    """
    stopped = run_async(stop_server(), output)
    if output is Format.JSON:
        print_json({"stopped": stopped})
    else:
        console.print("stopped" if stopped else "no local server of ours runs")


Pool = Annotated[str, typer.Option("--pool", envvar="KONVERGE_POOL", help="Work pool of the flows.")]
Deployment = Annotated[
    str,
    typer.Option(
        "--deployment",
        envvar="KONVERGE_DEPLOYMENT",
        help="Name of the deployments; one per fleet on a shared server.",
    ),
]
Wait = Annotated[float, typer.Option("--wait", help="Seconds to wait for the server of PREFECT_API_URL.", min=0.0)]

Keep = Annotated[
    float,
    typer.Option(
        "--keep",
        help="Stay, and look every so many seconds whether the server still has the deployments: one on SQLite loses"
        " them with its pod.",
        min=0.0,
    ),
]


@server_app.command()
def bootstrap(
    fleet: FleetName = "kong",
    namespace: Namespace = "default",
    pool: Pool = "konverge",
    deployment: Deployment = "fleet",
    wait: Wait = 0.0,
    keep: Keep = 0.0,
    output: Output = Format.TABLE,
) -> None:
    """Create the work pool, a fleet's deployments with their schedules, and the automations that end zombie runs
    and try failed rotations again.

    Running it again changes nothing. Example: konverge server bootstrap --fleet kong --namespace default
    """
    build_target(fleet, namespace, None, None)
    chosen = {
        "KONVERGE_FLEET": fleet,
        "KONVERGE_NAMESPACE": namespace,
        "KONVERGE_POOL": pool,
        "KONVERGE_DEPLOYMENT": deployment,
    }
    run_async(_bootstrap(chosen, wait), output)
    if output is Format.JSON:
        print_json({"bootstrapped": True, "deployment": deployment, "pool": pool})
    else:
        console.print(f"bootstrapped; start a worker: prefect worker start --pool {pool}")
    if keep:
        run_async(_keep(chosen, keep), output)


async def _keep(chosen: dict[str, str], seconds: float) -> None:
    """Make the deployments again whenever the server has lost them, until this is cancelled."""
    rotation = f"cert-rotation/{chosen['KONVERGE_DEPLOYMENT']}"
    while True:
        await asyncio.sleep(seconds)
        try:
            server = await ensure_server()
            if not await is_deployed(server.url, rotation):
                errors.print(f"{rotation} is gone from {server.url}: it is made again", soft_wrap=True)
                await _bootstrap(chosen, wait=0.0)
        except (Unavailable, FinalError) as error:
            errors.print(error.message, markup=False, soft_wrap=True)


async def _bootstrap(chosen: dict[str, str], wait: float) -> None:
    server = await _await_server(wait)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flows.bootstrap"),
        env={**client_environment(server), **chosen},
        stdout=asyncio.subprocess.DEVNULL,
    )
    if await process.wait() != 0:
        raise FinalError(
            "The bootstrap of the Prefect server failed; its output is above",
            reason="BootstrapFailed",
            hint="howto/prefect.md",
        )


async def _await_server(wait: float) -> PrefectServer:
    """Return the server, as soon as it answers; a pod may start before that of its server."""
    deadline = asyncio.get_running_loop().time() + wait
    while True:
        try:
            return await ensure_server()
        except Unavailable:
            if asyncio.get_running_loop().time() >= deadline:
                raise
        await asyncio.sleep(LOOK_SECONDS)
