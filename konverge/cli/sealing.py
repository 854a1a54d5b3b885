"""konverge keys: where the private keys of a fleet are kept, and under which key."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from konverge.cli.opening import open_fleet
from konverge.cli.options import Context, FleetName, Kubeconfig, Namespace, Output, build_target
from konverge.cli.output import Format, console, fail, print_json, run_async
from konverge.errors import KonvergeError, UsageError
from konverge.model.target import Target
from konverge.operate.sealing import KeptView, list_kept, migrate_store, rewrap_keys
from konverge.pki.sealing.keyring import generate_key, parse_keys

keys_app = typer.Typer(no_args_is_help=True, help="Where the private keys of a fleet are kept: look, rewrap, move.")


class Store(StrEnum):
    """The stores that identities can be moved to."""

    SECRET = "secret"  # noqa: S105 - a kind of store
    SEALED = "sealed"


@keys_app.command(name="status")
def keys_status(
    fleet: FleetName,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Show where each identity of a fleet is kept, and under which key encryption key.

    Example: konverge keys status --fleet shop -o json
    """
    _print_views(run_async(_list(build_target(fleet, namespace, kubeconfig, context)), output), output)


@keys_app.command()
def rewrap(
    fleet: FleetName,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Seal everything under the newest key encryption key; afterwards the old one may go. Repeat it if it is cut off.

    Example: konverge keys rewrap --fleet shop
    """
    changed = run_async(_rewrap(build_target(fleet, namespace, kubeconfig, context)), output)
    if output is Format.JSON:
        print_json({"rewrapped": changed})
        return
    for place in changed:
        console.print(f"rewrapped {place}", markup=False, highlight=False)
    if not changed:
        console.print("everything is under the key in force")


@keys_app.command()
def migrate(
    fleet: FleetName,
    to: Annotated[Store, typer.Option("--to", help="The store to move to.")],
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Output = Format.TABLE,
) -> None:
    """Move the authority and the controller's identity to the other store, without a gap. Repeat it if it is cut off.

    Example: konverge keys migrate --fleet shop --to sealed
    """
    _print_views(run_async(_migrate(build_target(fleet, namespace, kubeconfig, context), to), output), output)


@keys_app.command()
def generate(
    file: Annotated[Path, typer.Option("--file", help="The key file; a new key goes in front of those it has.")],
    output: Output = Format.TABLE,
) -> None:
    """Put a new key encryption key in front of a key file, which is created with mode 0600. The key is not shown.

    Example: konverge keys generate --file shop.keys
    """
    try:
        keys = _prepend_key(file)
    except KonvergeError as error:
        fail(error, output)
    if output is Format.JSON:
        print_json({"file": str(file), "current": keys[0], "accepted": keys[1:]})
        return
    console.print(f"{file}: key {keys[0]} is in force", markup=False, highlight=False)
    for old in keys[1:]:
        console.print(f"{file}: key {old} still opens what it sealed", markup=False, highlight=False)


async def _list(target: Target) -> list[KeptView]:
    async with open_fleet(target) as (kube, fleet):
        return await list_kept(kube, fleet)


async def _rewrap(target: Target) -> list[str]:
    async with open_fleet(target) as (kube, fleet):
        return await rewrap_keys(kube, fleet)


async def _migrate(target: Target, to: Store) -> list[KeptView]:
    async with open_fleet(target) as (kube, fleet):
        return await migrate_store(kube, fleet, "sealed" if to is Store.SEALED else "secret")


def _print_views(views: list[KeptView], output: Format) -> None:
    if output is Format.JSON:
        print_json({"identities": [view.to_json() for view in views]})
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("PLACE", "KEY", "CURRENT", "MOVED", "PROBLEM"):
        table.add_column(column, overflow="fold")
    for view in views:
        current = "-" if not view.key_id else "yes" if view.current else "[yellow]no[/]"
        moved = "yes" if view.moved else "[yellow]no[/]"
        table.add_row(view.place, view.key_id or "-", current, moved, view.problem or "-")
    console.print(table)


def _prepend_key(path: Path) -> list[str]:
    """Write a new key before those of a file and return the ids of all; the file is exchanged as a whole."""
    held = path.read_text(encoding="ascii") if path.exists() else ""
    if held:
        parse_keys(held, f"the file {path}")
    text = f"{generate_key()}\n{held}"
    fresh = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise UsageError(f"{path} cannot be written: {error.strerror}", reason="FileNotWritable") from None
    return list(parse_keys(text, f"the file {path}"))
