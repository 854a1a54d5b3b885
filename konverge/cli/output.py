"""How the command speaks: tables for people, JSON for programs, one triple for a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

import orjson
import typer
from rich.console import Console

from konverge.errors import DOCS, CheckRefused, KonvergeError, UsageError

OK, FAILED, USAGE, REFUSED = 0, 1, 2, 3
"""Exit codes: done; failed; wrong words or a difference found; refused by a check."""

console = Console()
errors = Console(stderr=True)

Result = TypeVar("Result")


class Format(StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"


def print_json(value: Any) -> None:
    """Write a value as indented JSON to standard output, and nothing else."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=_encode).decode())


def _encode(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    return str(value)


def exit_code_of(error: KonvergeError) -> int:
    """Return the exit code of a failure."""
    if isinstance(error, UsageError):
        return USAGE
    return REFUSED if isinstance(error, CheckRefused) else FAILED


def fail(error: KonvergeError, output: Format = Format.TABLE) -> NoReturn:
    """Show a failure as one triple and exit with its code."""
    if output is Format.JSON:
        print_json({"error": error.triple()})
    errors.print(f"[bold red]{error.reason}[/]: ", end="")
    errors.print(error.message, markup=False, highlight=False, soft_wrap=True)
    errors.print(f"  see {DOCS}{error.hint}", style="dim", markup=False, highlight=False)
    raise typer.Exit(exit_code_of(error))


def run_async(work: Coroutine[Any, Any, Result], output: Format = Format.TABLE) -> Result:
    """Run a verb to its end; failures become one message and an exit code, Ctrl-C becomes 130."""
    try:
        return asyncio.run(work)
    except KonvergeError as error:
        fail(error, output)
    except ExceptionGroup as group:
        first = next((e for e in _flatten(group) if isinstance(e, KonvergeError)), None)
        if first is None:
            raise
        fail(first, output)
    except KeyboardInterrupt:
        errors.print("interrupted")
        raise typer.Exit(130) from None


def _flatten(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _flatten(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
