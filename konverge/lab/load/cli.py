"""``konverge lab load``: send load on a fixed schedule and say what became of every request."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console

from konverge.errors import KonvergeError, UsageError
from konverge.lab.load.controlling import run_plan, write_report
from konverge.lab.load.plan import LoadPlan, Target, TrafficClass, describe_errors, read_plan
from konverge.lab.load.report import LoadReport
from konverge.lab.load.showing import show_failure, show_report

FAILED, USAGE = 1, 2
"""Exit codes: a request failed, or the run did; the words are off."""


class Format(StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"


def load(
    target: Annotated[str, typer.Option(help="URL of the requests, such as http://127.0.0.1:8000/path")] = "",
    rate: Annotated[float, typer.Option(min=0.1, help="Requests per second")] = 200.0,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds")] = 10.0,
    host_header: Annotated[str, typer.Option(help="Host header of the requests")] = "",
    header: Annotated[list[str] | None, typer.Option(help="NAME: VALUE, sent along; may be repeated")] = None,
    expect: Annotated[list[int] | None, typer.Option(help="Status that passes (200); may be repeated")] = None,
    fresh_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Part of the requests on connections of their own")
    ] = 0.3,
    connections: Annotated[int, typer.Option(min=1, help="Kept connections")] = 16,
    timeout: Annotated[float, typer.Option(min=0.01, help="Seconds for one exchange")] = 10.0,
    plan: Annotated[Path | None, typer.Option(help="Plan as JSON, instead of --target and its like")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report to this file, too")] = None,
    output: Annotated[Format, typer.Option("-o", "--output", help="table or json")] = Format.TABLE,
) -> None:
    """Send load on a fixed schedule and count every failure by kind. Exit code 1 where a request failed."""
    try:
        chosen = (
            _read(plan)
            if plan
            else make_plan(
                target,
                rate=rate,
                host=host_header,
                headers=header or [],
                expect=expect or [200],
                fresh_share=fresh_share,
                connections=connections,
                timeout=timeout,
            )
        )
        result = asyncio.run(_run(chosen, duration, report, output))
    except KonvergeError as error:
        if output is Format.JSON:
            _print_json({"error": error.triple()})
        show_failure(error, Console(stderr=True))
        raise typer.Exit(USAGE if isinstance(error, UsageError) else FAILED) from None
    if output is Format.JSON:
        _print_json(result.model_dump(mode="json"))
    else:
        show_report(result, Console())
    raise typer.Exit(0 if result.clean else FAILED)


def _print_json(value: Any) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


async def _run(plan: LoadPlan, duration: float, report: Path | None, output: Format) -> LoadReport:
    if output is Format.TABLE:
        words = f"{plan.rate:g} requests/s to {plan.base_url} for {duration:g} s, Ctrl-C ends it"
        Console(stderr=True).print(words, style="dim", highlight=False)
    result = await run_plan(plan, duration=duration, announce=_say_nothing)
    if report:
        await asyncio.to_thread(write_report, result, report)
    return result


def _say_nothing(event: str, value: Any) -> None:
    """Standard output belongs to the report."""


def _read(path: Path) -> LoadPlan:
    try:
        return read_plan(path.read_bytes(), f"--plan {path}")
    except OSError as error:
        raise UsageError(f"--plan {path} cannot be read: {error.strerror}", hint="reference/load.md#plan") from error


def make_plan(
    url: str,
    *,
    rate: float,
    host: str = "",
    headers: list[str],
    expect: list[int],
    fresh_share: float,
    connections: int,
    timeout: float,
) -> LoadPlan:
    """Return the plan for one URL: kept and fresh connections; UsageError names the flag that is off."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"--target {url!r} is no http:// or https:// URL", hint="reference/load.md#command")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        target = Target(name=path, path=path, host=host, headers=_split_headers(headers), expect=expect)
        shares = {"keepalive": 1 - fresh_share, "fresh": fresh_share}
        classes = [
            TrafficClass(name=kind, kind="fresh" if kind == "fresh" else "keepalive", share=share, targets=[target])
            for kind, share in shares.items()
            if share > 0
        ]
        classes = [item.model_copy(update={"connections": connections}) for item in classes]
        base = f"{parts.scheme}://{parts.netloc}"
        return LoadPlan(base_url=base, rate=rate, classes=classes, timeout=timeout, phase="run")
    except ValidationError as error:
        raise UsageError(f"The load: {describe_errors(error)}", hint="reference/load.md#command") from error


def _split_headers(lines: list[str]) -> dict[str, str]:
    pairs = [line.partition(":") for line in lines]
    for name, colon, _ in pairs:
        if not colon or not name.strip():
            raise UsageError(f"--header {name!r} is not NAME: VALUE", hint="reference/load.md#command")
    return {name.strip(): value.strip() for name, _, value in pairs}
