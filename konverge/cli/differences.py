"""Shows what differs between two configurations; nothing of it is secret."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import typer

from konverge.cli.output import errors
from konverge.kong.declarative.comparing import CHANGED, ONLY_LEFT, Difference


def show_differences(found: Sequence[Difference], uncompared: Iterable[str] = ()) -> None:
    """Print differences as lines of -, + and ~, and their number."""
    for kind in uncompared:
        errors.print(f"not compared, one side does not tell: {kind}", style="yellow", highlight=False)
    entity = ""
    for difference in found:
        if difference.change != CHANGED:
            typer.echo(f"{'-' if difference.change == ONLY_LEFT else '+'} {difference.entity}")
            continue
        if difference.entity != entity:
            typer.echo(f"~ {difference.entity}")
            entity = difference.entity
        typer.echo(f"    {difference.field}: {difference.left} -> {difference.right}")
    total = len({difference.entity for difference in found})
    typer.echo("no difference" if not found else "1 entity differs" if total == 1 else f"{total} entities differ")
