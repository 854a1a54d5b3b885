"""The konverge command: one verb per module."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from konverge import __version__
from konverge.cli import (
    certs,
    checking,
    controlling,
    crds,
    drifting,
    history,
    migrating,
    rendering,
    rolling_back,
    sealing,
    serving,
    status,
    syncing,
)
from konverge.cli.demo.command import demo
from konverge.lab.cli import lab_app

app = typer.Typer(
    name="konverge",
    help="One controller for any number of DB-less Kong proxies.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(status.status)
app.command()(checking.check)
app.command()(syncing.sync)
app.command()(history.history)
app.command()(rolling_back.rollback)
app.command()(drifting.drift)
app.add_typer(migrating.migrate_app, name="migrate")
app.add_typer(certs.certs_app, name="certs")
app.add_typer(sealing.keys_app, name="keys")
app.command()(rendering.render)
app.command()(rendering.diff)
app.command()(rendering.explain)
app.command()(controlling.controller)
app.command()(crds.crds)
app.add_typer(serving.server_app, name="server")
lab_app.command()(demo)
app.add_typer(lab_app, name="lab")


def _print_version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done to standard error.")] = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One controller for any number of DB-less Kong proxies."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # It warns of what we raise as an error of our own.
    logging.getLogger("kubernetes").setLevel(logging.INFO if verbose else logging.ERROR)


def run() -> None:
    """Enter the command; the entry point of the package."""
    app()
