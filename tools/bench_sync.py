"""Times pushing one configuration to many proxies over mutual TLS, against curl and against a loop like KIC's.

The proxies are bare servers in one process of their own (``tools/pushing/serving.py``): what they cost is the same
for all, and the column ``servers`` tells how busy it was: near 100 % no client can be faster. Contenders, in turn in
the same run, each with another configuration:

- ``curl``: ``curl --parallel --parallel-max 20``, the same bytes, the same certificates, no read back;
- ``first``: ours, over new connections, 20 at a time, every hash read back;
- ``kept``: ours over the connections of the push before, read back;
- ``kic``: a loop like KIC's over kept connections: content and SHA made anew per proxy, 2 at a time, no read back.

Then the peak memory of a process that pushes to ever more proxies; the transports against a real HTTP/2 server
(``tools/pushing/nginx.py``, left out where there is no nginx); the whole Prefect flow against the bare engine
(``tools/pushing/flowing.py``). What decides about the last three is in these modules.

Usage: ``python tools/bench_sync.py [--full] [--parts pushes,memory,transports,flow] [--transports http1,http2]
[--proxies 10,100] [--sizes 1000000]``. Prints tables, writes ``build/bench-sync.json``; the exit code is 1 where a
goal is missed. The default ends within 6 minutes on two quiet cores; ``--full`` adds 1,000 proxies x 1 MB and 8 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pushing.flowing import measure_flow
from pushing.measuring import Cell, measure, measure_memory
from pushing.nginx import TRANSPORTS, measure_transports
from reporting import write_report

GOAL_FIRST = 1.3
GOAL_KEPT = 0.8
SATURATED = 0.9
"""How busy the one process of the servers is when it is the limit, and not the client."""
GOAL_MEMORY = 0.15
"""MiB that one more proxy may take: the objects of a kept connection, and nothing of what is sent."""
GOAL_FLOW = 1.5
PARTS = ("pushes", "memory", "transports", "flow")
SIZES = (100_000, 1_000_000, 8_000_000)
MEMORY_SIZES = (1_000_000, 8_000_000)
FULL_MEMORY_BYTES = 1_000_000_000
"""Bytes of a push to all proxies that memory is measured up to: 1,000 x 8 MB, twice, moves 32 GB over loopback."""
MOST_BYTES = 1_000_000_000
"""Bytes of one push to all proxies that the default stays below: 100 proxies x 8 MB, 1,000 x 100 KB."""
LOAD = 0.36
"""Seconds that Kong 3.9 needs for 1,000 routes, about 1 MB."""


def choose(options: argparse.Namespace) -> list[tuple[int, int]]:
    """Return the sizes to measure as (proxies, bytes)."""
    if options.proxies or options.sizes:
        counts = [int(n) for n in (options.proxies or "10,100").split(",")]
        sizes = [int(n) for n in (options.sizes or "1000000").split(",")]
        return [(count, size) for count in counts for size in sizes]
    cells = [(count, size) for count in (10, 100, 1000) for size in SIZES]
    return cells if options.full else [cell for cell in cells if cell[0] * cell[1] < MOST_BYTES]


def show(cell: Cell, label: str = "") -> None:
    """Print one line per contender."""
    shown = cell.show()
    for name in cell.times:
        row = shown[name]
        print(
            f"{cell.proxies:7d} {cell.bytes / 1e6:7.2f} {name:12s} {row['best_s']:9.3f} {row['median_s']:9.3f} "
            f"{row['to_curl']:7.2f} {row['cpu_s']:7.3f} {row['servers_busy']:7.0%} {row['rounds']:6d}  {label}",
            flush=True,
        )


def judge_pushes(cells: list[Cell]) -> dict[str, bool]:
    """Return for each goal of a push whether it is met, by the medians, at every size; say where it is not."""
    goals: dict[str, Callable[[Cell], bool]] = {
        f"first <= {GOAL_FIRST} x curl": lambda cell: cell.ratio("first", "curl") <= GOAL_FIRST,
        f"kept <= {GOAL_KEPT} x curl": lambda cell: cell.ratio("kept", "curl") <= GOAL_KEPT,
        "kept ahead of the loop like KIC's": lambda cell: cell.ratio("kept", "kic") < 1.0,
    }
    for goal, holds in goals.items():
        for cell in cells:
            if not holds(cell):
                busy = statistics.median(cell.servers["kept"])
                limit = f" (the servers were {busy:.0%} busy: no client could be faster)" if busy > SATURATED else ""
                print(f"not at {cell.proxies} proxies x {cell.size / 1e6:g} MB: {goal}{limit}")
    return {goal: all(holds(cell) for cell in cells) for goal, holds in goals.items()}


async def run_pushes(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Measure pushes at every size, and once with servers that take time to load."""
    print(f"load of this machine at the start: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(
        f"{'proxies':>7} {'MB':>7} {'contender':12s} {'best s':>9} {'median s':>9} "
        f"{'x curl':>7} {'cpu s':>7} {'servers':>7} {'rounds':>6}"
    )
    settings: dict[str, Any] = {"answer": options.answer, "seconds": options.seconds}
    cells = []
    for proxies, size in choose(options):
        cells.append(await measure(directory, proxies, size, **settings))
        show(cells[-1])
    loading = await measure(directory, 10, 1_000_000, load=LOAD, **settings)
    show(loading, f"every server takes {LOAD} s to load")
    return {
        "cells": [cell.show() for cell in cells],
        "loading": {"load_s": LOAD, **loading.show()},
        "goals": judge_pushes(cells),
    }


async def run_memory(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Measure the peak memory at each number of proxies; what counts is what each further proxy adds."""
    counts = (10, 100, 1000) if options.full else (10, 100)
    rows: list[dict[str, float]] = []
    for size in MEMORY_SIZES:
        base: dict[str, float] = {}
        for count in counts:
            if count * size > FULL_MEMORY_BYTES:
                print(f"memory: {count:5d} proxies, {size / 1e6:.0f} MB: left out, too much to move on this machine")
                continue
            row = await measure_memory(directory, count, size, options.answer)
            base = base or row
            row["each_mib"] = (row["peak_mib"] - base["peak_mib"]) / max(count - counts[0], 1)
            rows.append(row)
            more = f", {row['each_mib']:.3f} MiB for each proxy more than {counts[0]}" if row is not base else ""
            print(
                f"memory: {count:5d} proxies, {size / 1e6:.0f} MB: peak {row['peak_mib']:6.1f} MiB{more}", flush=True
            )
    met = all(row["each_mib"] <= GOAL_MEMORY for row in rows)
    return {"rows": rows, "goals": {f"memory: at most {GOAL_MEMORY} MiB a proxy, whatever the size": met}}


async def run_transports(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Measure the transports; nothing is to be met here, the numbers choose."""
    names = [name for name in options.transports.split(",") if name in TRANSPORTS]
    found = await measure_transports(directory, 100, 1_000_000, rounds=3, names=names)
    if "skipped" in found:
        print(f"transports: left out, {found['skipped']}")
    for name, row in found.get("contenders", {}).items():
        print(
            f"transport {name:14s} {found['proxies']} proxies, {found['bytes'] / 1e6:.2f} MB: "
            f"best {row['best_s']:.3f} s, median {row['median_s']:.3f} s, cpu {row['cpu_s']:.3f} s",
            flush=True,
        )
    return found


async def run_flow(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Measure the flow."""
    found = await measure_flow(directory, 100, options.flow_rounds)
    print(
        f"flow: {found['proxies']} proxies, {found['bytes'] / 1e6:.2f} MB, medians of {options.flow_rounds} rounds:"
    )
    for name, what in FLOW_ROWS.items():
        print(f"  {name:8s} {statistics.median(found['seconds'][name]):7.3f} s  {what}")
    print(f"  tasks / bare: {found['to_bare']:.2f}", flush=True)
    return {**found, "goals": {f"flow <= {GOAL_FLOW} x bare engine": found["to_bare"] <= GOAL_FLOW}}


FLOW_ROWS = {
    "bare": "the engine without Prefect, writes to the Kubernetes API included",
    "tasks": "the flow, from the start of its first task to the end of its last",
    "run": "the flow run as Prefect records it",
    "process": "the command's wait: interpreter and imports too",
}
RUNS = {"pushes": run_pushes, "memory": run_memory, "transports": run_transports, "flow": run_flow}


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what is asked for, each part in a directory of its own, and print it."""
    report: dict[str, Any] = {"python": platform.python_version(), "answer": options.answer, "goals": {}}
    for part in options.parts.split(","):
        with tempfile.TemporaryDirectory(prefix="konverge-bench-") as directory:
            report[part] = await RUNS[part](options, Path(directory))
        report["goals"] |= report[part].pop("goals", {})
    for goal, met in report["goals"].items():
        print(f"goal: {goal}: {'met' if met else 'MISSED'}")
    report["load_average"] = os.getloadavg()
    return report


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="1,000 proxies x 1 MB and 8 MB as well")
    parser.add_argument("--proxies", help="numbers of proxies, with commas")
    parser.add_argument("--sizes", help="bytes, with commas")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts, with commas")
    parser.add_argument("--transports", default=",".join(TRANSPORTS), help="which transports, with commas")
    parser.add_argument("--flow-rounds", type=int, default=3)
    parser.add_argument(
        "--answer", choices=("full", "short"), default="full", help="how long a 201 is; Kong's is full"
    )
    parser.add_argument("--seconds", type=float, default=12.0, help="per size, at least one round")
    parser.add_argument("--output", default="build/bench-sync.json")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if unknown := set(options.parts.split(",")) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}")
    report = asyncio.run(run(options))
    write_report(options.output, report)
    return 0 if all(report["goals"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
