"""A lab in the foreground: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.live import Live

from konverge.errors import KonvergeError
from konverge.kube.resources import PODS
from konverge.lab.controllers.caching import Cache
from konverge.lab.supervisor.running import Lab
from konverge.lab.supervisor.serving import Show, serve_lab
from konverge.lab.supervisor.settings import LabSettings
from konverge.lab.supervisor.showing import next_steps, print_failure, render_lab

REFRESH_SECONDS = 0.5


def run_foreground(settings: LabSettings) -> int:
    """Run a lab until Ctrl-C; returns the exit code."""
    console = Console()

    def report(what: str, how: str) -> None:
        console.print(f"{what:<12} {how}", highlight=False)

    def on_ready(lab: Lab) -> None:
        for line in next_steps(lab.state):
            console.print(line, highlight=False, soft_wrap=True)
        console.print("Ctrl-C ends the lab.")

    try:
        asyncio.run(serve_lab(settings, report, on_ready, make_show(console)))
    except KonvergeError as error:
        return print_failure(error)
    return 0


def make_show(console: Console) -> Show:
    """Return what shows a lab on this console."""

    async def show(lab: Lab) -> None:
        if not console.is_terminal:
            await asyncio.Event().wait()
        async with await lab.client() as client:
            pods = Cache(client, PODS)
            task = asyncio.create_task(pods.run())
            try:
                await refresh(console, lab, pods)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    return show


async def refresh(console: Console, lab: Lab, pods: Cache) -> None:
    """Draw the table again and again."""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(render_lab(lab.state, list(pods.items())), refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)
