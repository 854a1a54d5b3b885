"""konverge server: the local Prefect server."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from konverge.cli.options import Output
from konverge.cli.output import FAILED, Format, console, print_json, run_async
from konverge.errors import FinalError
from konverge.operate.orchestrator import client_environment, default_home, ensure_server, find_server, stop_server

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


@server_app.command()
def bootstrap(output: Output = Format.TABLE) -> None:
    """Create the work pool, the deployments of prefect.yaml and the automation that ends zombie runs.

    Running it again changes nothing. Example: konverge server bootstrap
    """
    run_async(_bootstrap(), output)
    if output is Format.JSON:
        print_json({"bootstrapped": True})
    else:
        console.print("bootstrapped; start a worker: prefect worker start --pool konverge")


async def _bootstrap() -> None:
    server = await ensure_server()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flows.bootstrap", env=client_environment(server), stdout=asyncio.subprocess.DEVNULL
    )
    if await process.wait() != 0:
        raise FinalError(
            "The bootstrap of the Prefect server failed; its output is above",
            reason="BootstrapFailed",
            hint="howto/prefect.md",
        )
