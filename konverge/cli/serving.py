"""konverge server: the local Prefect server."""

from __future__ import annotations

from typing import Annotated

import typer

from konverge.cli.options import Output
from konverge.cli.output import FAILED, Format, console, print_json, run_async
from konverge.operate.orchestrator import default_home, ensure_server, find_server, stop_server

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
