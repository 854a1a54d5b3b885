"""`make bench-isolation`: what sick proxies cost the healthy ones.

The engine pushes to a fleet of bare Admin APIs over mutual TLS, once to the healthy nine tenths alone and
once with the last tenth of them dead (nothing listens), silent (accepts, never answers) or slow (a push takes 60 s).
Measured for the healthy ones only: the 99th percentile of the time from greeting to read back, and of the moment at
which each was done since the push began. Rounds are interleaved; the figures are medians over them. A bare Admin API
has no proxy listener, so the probe of the data path is left out.

Prints a table and writes build/bench-isolation.json; exit code 1 where a p99 moved by more than 10 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from pushing import serving as serving_program
from pushing.world import FLEET, World, make_document, make_proxy, serving
from reporting import write_report

from konverge.model.proxy import Proxy, ProxyOutcome
from konverge.model.revision import Revision
from konverge.operate import visiting
from konverge.operate.connecting import GatewayPool, ProxyGateway
from konverge.operate.ports import DataPath

LIMIT = 1.1
"""Times the p99 without anybody sick."""
SLOW_SECONDS = 60.0


@dataclass
class Case:
    """One kind of sickness, and what was measured with it, in milliseconds."""

    name: str
    proxies: list[Proxy]
    healthy: set[str]
    visits: list[float] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)

    def show(self, base: Case) -> dict[str, Any]:
        """Return medians over the rounds, and how they compare."""
        visit, moment = statistics.median(self.visits), statistics.median(self.moments)
        return {
            "sick": len(self.proxies) - len(self.healthy),
            "visitP99": round(visit, 1),
            "doneP99": round(moment, 1),
            "visitRatio": round(visit / statistics.median(base.visits), 3),
            "doneRatio": round(moment / statistics.median(base.moments), 3),
        }


class Unprobed(GatewayPool):
    """Gateways whose data path is not asked: the servers have none."""

    def reach(self, proxy: Proxy) -> ProxyGateway:
        """Return a gateway that believes the read back."""
        gateway = super().reach(proxy)

        async def probe(marker: str, attempts: int) -> DataPath:  # noqa: ARG001
            return DataPath(attempts, attempts)

        gateway.probe = probe  # type: ignore[method-assign]
        return gateway


async def measure(world: World, case: Case, revision: Revision, concurrency: int) -> None:
    """Push to everybody once and note the times of the healthy ones; the sick are given up soon after."""
    visits: list[float] = []
    moments: list[float] = []
    done = asyncio.Event()

    async def note(proxy: Proxy, outcome: ProxyOutcome) -> None:
        if proxy.name not in case.healthy:
            return
        assert outcome.ok, outcome.outcome
        visits.append(outcome.milliseconds)
        moments.append((time.monotonic() - started) * 1000)
        if len(visits) == len(case.healthy):
            done.set()

    async with Unprobed(FLEET, world.files) as pool:
        started = time.monotonic()
        work = asyncio.create_task(visiting.visit_all(pool, revision, case.proxies, concurrency, note=note))
        await done.wait()
        work.cancel()
        await asyncio.wait({work})
    case.visits.append(percentile(visits))
    case.moments.append(percentile(moments))


def percentile(values: Sequence[float], share: float = 0.99) -> float:
    """Return the value that a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(healthy: Sequence[Proxy], sick: Sequence[Proxy]) -> list[Proxy]:
    """Put the sick evenly between the healthy ones."""
    mixed, step = list(healthy), max(1, len(healthy) // max(1, len(sick)))
    for number, proxy in enumerate(sick):
        mixed.insert(number * (step + 1), proxy)
    return mixed


def listen_silently(stack: ExitStack, count: int) -> list[int]:
    """Open ports that take connections and never answer."""
    return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


@asynccontextmanager
async def serving_slowly(directory: Path, count: int) -> AsyncIterator[list[int]]:
    """Run servers with the certificates of the well ones that need a minute to load; yields their ports."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, Path(serving_program.__file__), directory, str(count), "--load", str(SLOW_SECONDS),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())
    finally:
        process.stdin.close()
        await process.wait()


def find_dead(count: int) -> list[int]:
    """Return ports on which nothing listens."""
    with ExitStack() as stack:
        return listen_silently(stack, count)


def rename(ports: Sequence[int], offset: int) -> list[Proxy]:
    """Return servers as proxies with names of their own."""
    return [make_proxy(offset + number, port) for number, port in enumerate(ports)]


async def run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Measure every case in interleaved rounds."""
    ill = max(1, options.proxies // 10)
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(serving(directory, options.proxies, "short", options.load))
        slow = await stack.enter_async_context(serving_slowly(directory, ill))
        sockets = stack.enter_context(ExitStack())
        names = {"dead": find_dead(ill), "silent": listen_silently(sockets, ill), "slow": slow}
        # The base has the same healthy proxies, so that the servers' own work is the same in every case.
        kept = list(world.proxies)[: options.proxies - ill]
        cases = [Case("nobody sick", kept, {p.name for p in kept})]
        for offset, (name, ports) in enumerate(names.items(), 1):
            sick = rename(ports, 10_000 * offset)
            cases.append(Case(f"10 % {name}", spread(kept, sick), {p.name for p in kept}))
        for turn in range(options.rounds):
            for case in cases:
                content = orjson.dumps(make_document(options.size, turn * len(cases) + cases.index(case)))
                await measure(world, case, Revision(1, content), options.concurrency)
    return {case.name: case.show(cases[0]) for case in cases}


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxies", type=int, default=100)
    parser.add_argument("--size", type=int, default=100_000, help="bytes of the configuration")
    parser.add_argument("--load", type=float, default=0.2, help="seconds that a proxy needs to load")
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", default="build/bench-isolation.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        report = asyncio.run(run(options, Path(directory)))
    row: Callable[..., str] = "{:<14} {:>5} {:>12} {:>8} {:>12} {:>8}".format
    print(row("", "sick", "visit p99 ms", "ratio", "done p99 ms", "ratio"))
    for name, cell in report.items():
        print(row(name, cell["sick"], cell["visitP99"], cell["visitRatio"], cell["doneP99"], cell["doneRatio"]))
    write_report(options.output, {"options": vars(options), "cases": report})
    held = all(cell["visitRatio"] <= LIMIT and cell["doneRatio"] <= LIMIT for cell in report.values())
    print("held" if held else f"a p99 of the healthy ones moved by more than {LIMIT - 1:.0%}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
