"""konverge status: every fleet or every proxy at a glance, once or as it changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import orjson
import typer
import yaml
from rich.console import Console
from rich.live import Live

from konverge.cli.options import Context, Kubeconfig, Namespace
from konverge.cli.output import USAGE, Format, console, print_json, run_async
from konverge.cli.showing import Seen, describe_plainly, draw_fleets
from konverge.errors import KonvergeError
from konverge.kube.caching import Cache
from konverge.kube.client import KubeClient
from konverge.kube.resources import PROXY_FLEETS, PROXY_INSTANCES, Object
from konverge.model.proxy import ProxyStatus
from konverge.operate.fleets import list_fleets, list_instances, load_fleet, parse_fleet

SETTLE_SECONDS = 0.2
"""Changes that come within this time are drawn once."""
TICK_SECONDS = 1.0
"""Ages on a terminal are drawn anew this often; it costs no request."""
WIDE_COLUMNS = 200
NO_FLEET = "No ProxyFleet in this cluster. `konverge migrate run --help` tells how to make one."


class View(StrEnum):
    """Output formats of the status."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


def status(
    fleet: Annotated[str | None, typer.Argument(help="Fleet to look at; all fleets when left out.")] = None,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: Annotated[View, typer.Option("--output", "-o", help="How to print the result.")] = View.TABLE,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on and show what changes, until Ctrl-C.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Show the serving proxies of large fleets.")
    ] = False,
) -> None:
    """Show which configuration every proxy has loaded, whether it is up to date, its mTLS, and what is wrong.

    Exits 2 where a proxy is not in sync or carries no traffic.
    Examples: konverge status; konverge status shop -n gateways -w; konverge status -o json
    """
    failing = Format.JSON if output is View.JSON else Format.TABLE
    if watch:
        printer = _choose_printer(output, everything)
        tick = TICK_SECONDS if console.is_terminal and output in (View.TABLE, View.WIDE) else None
        run_async(_watch(fleet, namespace, kubeconfig, context, printer, tick), failing)
        return
    seen = run_async(_read(fleet, namespace, kubeconfig, context), failing)
    _print_once(seen, output, everything)
    if any(not proxy.traffic_ready or not proxy.synced for _, proxies in seen for proxy in proxies.values()):
        raise typer.Exit(USAGE)


async def _read(fleet: str | None, namespace: str, kubeconfig: str | None, context: str | None) -> list[Seen]:
    async with await KubeClient.connect(kubeconfig, context) as kube:
        if fleet is not None:
            fleets = [await load_fleet(kube, fleet, namespace)]
        else:
            fleets = [parse_fleet(body) for body in await list_fleets(kube)]
        return [(item, await list_instances(kube, item)) for item in fleets]


def _print_once(seen: Sequence[Seen], output: View, everything: bool) -> None:
    if output is View.JSON:
        print_json({"fleets": describe_plainly(seen)})
    elif output is View.YAML:
        typer.echo(yaml.safe_dump({"fleets": describe_plainly(seen)}, sort_keys=False, allow_unicode=True), nl=False)
    elif not seen:
        console.print(NO_FLEET)
    else:
        _draw(_choose_console(output), seen, output is View.WIDE, everything)


def _choose_console(output: View) -> Console:
    """Return the console to write to; a wide table is for a pager or a file and is not squeezed into 80 columns."""
    return Console(width=max(console.width, WIDE_COLUMNS)) if output is View.WIDE else console


def _draw(target: Console, seen: Sequence[Seen], wide: bool, everything: bool) -> None:
    drawn = draw_fleets(seen, datetime.now(UTC), wide=wide, everything=everything)
    target.print(drawn)


Printer = contextlib.AbstractContextManager[Callable[[Sequence[Seen]], None]]


def _choose_printer(output: View, everything: bool) -> Printer:
    """Return what shows a fleet again and again: a live table on a terminal, documents or tables one by one else."""
    if output in (View.JSON, View.YAML):
        return contextlib.nullcontext(lambda seen: _print_document(seen, output))
    if console.is_terminal:
        return _draw_live(output is View.WIDE, everything)
    return contextlib.nullcontext(lambda seen: _draw(_choose_console(output), seen, output is View.WIDE, everything))


def _print_document(seen: Sequence[Seen], output: View) -> None:
    """Write one line of JSON, or one YAML document, per change."""
    document = {"fleets": describe_plainly(seen)}
    if output is View.JSON:
        typer.echo(orjson.dumps(document).decode())
    else:
        typer.echo("---\n" + yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)


@contextlib.contextmanager
def _draw_live(wide: bool, everything: bool) -> Iterator[Callable[[Sequence[Seen]], None]]:
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        yield lambda seen: live.update(
            draw_fleets(seen, datetime.now(UTC), wide=wide, everything=everything), refresh=True
        )


async def _watch(
    fleet: str | None,
    namespace: str,
    kubeconfig: str | None,
    context: str | None,
    printer: Printer,
    tick: float | None,
) -> None:
    """Show the fleets at every change, by one watch of the fleets and one of the instances."""
    async with await KubeClient.connect(kubeconfig, context) as kube:
        if fleet is not None:
            await load_fleet(kube, fleet, namespace)
        else:
            await list_fleets(kube)
        async with follow_fleets(kube, fleet, namespace, tick) as changes:
            with printer as show:
                async for seen in changes:
                    show(seen)


@contextlib.asynccontextmanager
async def follow_fleets(
    kube: KubeClient, fleet: str | None, namespace: str, tick: float | None = None
) -> AsyncIterator[AsyncIterator[list[Seen]]]:
    """Give the states of the fleets as they change; with ``tick`` also every so many seconds without a change."""
    changed = asyncio.Event()
    where = namespace if fleet is not None else None
    fleets = Cache(kube, PROXY_FLEETS, where, fields=f"metadata.name={fleet}" if fleet else "")
    proxies = Cache(kube, PROXY_INSTANCES, where, labels=f"konverge.dev/fleet={fleet}" if fleet else "")
    for cache in (fleets, proxies):
        cache.on_change = lambda _kind, _body: changed.set()
    tasks = [asyncio.create_task(cache.run()) for cache in (fleets, proxies)]
    try:
        await asyncio.gather(fleets.synced.wait(), proxies.synced.wait())
        yield _yield_changes(fleets, proxies, changed, tick)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _yield_changes(
    fleets: Cache, proxies: Cache, changed: asyncio.Event, tick: float | None
) -> AsyncIterator[list[Seen]]:
    while True:
        await asyncio.sleep(SETTLE_SECONDS)
        changed.clear()
        yield _pair(list(fleets), list(proxies))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(tick):
                await changed.wait()


def _pair(fleets: list[Object], proxies: list[Object]) -> list[Seen]:
    """Return the fleets with their proxies; a fleet that cannot be read is left out until it can."""
    by_fleet: dict[tuple[str, str], dict[str, ProxyStatus]] = {}
    for body in proxies:
        metadata = body["metadata"]
        owner = (metadata["namespace"], (metadata.get("labels") or {}).get("konverge.dev/fleet", ""))
        by_fleet.setdefault(owner, {})[metadata["name"]] = ProxyStatus.model_validate(body.get("status") or {})
    seen: list[Seen] = []
    for body in sorted(fleets, key=lambda item: (item["metadata"]["namespace"], item["metadata"]["name"])):
        with contextlib.suppress(KonvergeError):
            fleet = parse_fleet(body)
            seen.append((fleet, by_fleet.get((fleet.namespace, fleet.name), {})))
    return seen
