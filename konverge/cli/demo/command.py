"""The command: konverge lab demo."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console

from konverge.cli.demo.playing import play
from konverge.cli.demo.reporting import DemoReport, print_report
from konverge.cli.demo.staging import Stage, set_stage
from konverge.cli.options import Output
from konverge.cli.output import FAILED, Format, console, errors, print_json, run_async
from konverge.lab.supervisor.settings import find_home

Keep = Annotated[bool, typer.Option("--keep", help="Leave the lab and the UI running.")]


def demo(
    naive: Annotated[bool, typer.Option("--naive", help="Delete the old Deployment, apply the new.")] = False,
    keep: Keep = False,
    report: Annotated[Path | None, typer.Option("--report", help="Write the report as JSON to this file.")] = None,
    rate: Annotated[float, typer.Option("--rate", min=1, help="Requests per second.")] = 200.0,
    proxies: Annotated[int, typer.Option("--proxies", min=1, help="Proxies of the legacy installation.")] = 3,
    name: Annotated[str, typer.Option("--name", help="Name of the lab.")] = "demo",
    output: Output = Format.TABLE,
) -> None:
    """Migrate a legacy installation under load in a lab of its own and report every request.

    Exits 0 when no request failed (with --naive: when it ran), 1 otherwise. Examples: konverge lab demo;
    konverge lab demo --naive -o json
    """
    view = errors if output is Format.JSON else console
    found = run_async(
        _demo(naive=naive, keep=keep, rate=rate, proxies=proxies, name=name, path=report, view=view, output=output),
        output,
    )
    if not found.succeeded:
        raise typer.Exit(FAILED)


async def _demo(
    *, naive: bool, keep: bool, rate: float, proxies: int, name: str, path: Path | None, view: Console, output: Format
) -> DemoReport:
    def say(what: str, how: str) -> None:
        view.print(f"{what:<12} {how}", style="dim", highlight=False)

    async with set_stage(name, proxies=proxies, rate=rate, prefect=not naive, keep=keep, report=say) as stage:
        found = await play(stage, view, naive=naive)
        if path is not None:
            await asyncio.to_thread(path.write_bytes, orjson.dumps(found.to_json(), option=orjson.OPT_INDENT_2))
        if output is Format.JSON:
            print_json(found.to_json())
        else:
            print_report(found, view)
        if keep:
            _tell_how_to_go_on(stage, name, view)
    return found


def _tell_how_to_go_on(stage: Stage, name: str, view: Console) -> None:
    """Say where everything is that keeps running, and how to end it."""
    lines = [f"export KUBECONFIG={stage.kubeconfig}", "konverge status", f"konverge lab down --name {name}"]
    if stage.prefect is not None:
        home = find_home() / "prefect" / name
        lines = [
            f"Prefect UI: {stage.prefect.ui}",
            *lines,
            f"KONVERGE_PREFECT_HOME={home} konverge server stop",
        ]
    for line in ["The lab keeps running:", *lines]:
        view.print(line, highlight=False, soft_wrap=True, markup=False)
