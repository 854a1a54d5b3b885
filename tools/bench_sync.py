"""Times pushing one configuration to many proxies over mutual TLS, against curl and against a loop like KIC's.

The proxies are bare servers in one process of their own (``tools/pushing/serving.py``): what they cost is the same
for all. Contenders, in turn in the same run, each with another configuration:

- ``curl``: ``curl --parallel --parallel-max 20``, the same bytes, the same certificates, no read back;
- ``first``: ours, over new connections, 20 at a time, every hash read back;
- ``kept``: ours over the connections of the push before, read back;
- ``kic``: a loop like KIC's over kept connections: content and SHA made anew per proxy, 2 at a time, no read back;
- with ``--transports http1``: httpx over its own connections, HTTP/1.1, first and kept, read back.

Usage: ``python tools/bench_sync.py [--full] [--transports http1] [--proxies 10,100] [--sizes 1000000]``.
Prints tables, writes ``build/bench-sync.json``; the exit code is 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

from pushing.measuring import Cell, measure, measure_memory

GOAL_FIRST = 1.3
GOAL_KEPT = 0.8
GOAL_MEMORY = 1.0
"""MiB that one more proxy may take: a kept TLS connection of asyncio, and nothing of the 8 MB that it is sent."""
MEMORY_SIZE = 8_000_000
SIZES = (100_000, 1_000_000, 8_000_000)
LOAD = 0.36
"""Seconds that Kong 3.9 needs for 1,000 routes, about 1 MB."""


def choose(options: argparse.Namespace) -> list[tuple[int, int]]:
    """Return the sizes to measure as (proxies, bytes)."""
    if options.proxies or options.sizes:
        counts = [int(n) for n in (options.proxies or "10,100").split(",")]
        sizes = [int(n) for n in (options.sizes or "1000000").split(",")]
        return [(count, size) for count in counts for size in sizes]
    cells = [(count, size) for count in (10, 100, 1000) for size in SIZES]
    return cells if options.full else [cell for cell in cells if cell[0] * cell[1] <= 1_000_000_000]


def show(cell: Cell, label: str = "") -> None:
    """Print one line per contender."""
    shown = cell.show()
    for name in cell.times:
        row = shown[name]
        print(
            f"{cell.proxies:7d} {cell.bytes / 1e6:7.2f} {name:12s} {row['best_s']:9.3f} {row['median_s']:9.3f} "
            f"{row['to_curl']:7.2f} {row['cpu_s']:7.3f} {row['rounds']:6d}  {label}",
            flush=True,
        )


def judge(cells: list[Cell], memory: list[dict[str, float]]) -> dict[str, bool]:
    """Return for each goal whether it is met, by the medians."""
    return {
        f"first <= {GOAL_FIRST} x curl": all(cell.ratio("first", "curl") <= GOAL_FIRST for cell in cells),
        f"kept <= {GOAL_KEPT} x curl": all(cell.ratio("kept", "curl") <= GOAL_KEPT for cell in cells),
        "kept ahead of the loop like KIC's": all(cell.ratio("kept", "kic") < 1.0 for cell in cells),
        f"memory: at most {GOAL_MEMORY} MiB a proxy": all(row["each_mib"] <= GOAL_MEMORY for row in memory[1:]),
    }


async def run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Measure everything and print it."""
    transports = [name for name in options.transports.split(",") if name]
    settings: dict[str, Any] = {"answer": options.answer, "seconds": options.seconds, "transports": transports}
    print(
        f"{'proxies':>7} {'MB':>7} {'contender':12s} {'best s':>9} {'median s':>9} "
        f"{'x curl':>7} {'cpu s':>7} {'rounds':>6}"
    )
    cells = []
    for proxies, size in choose(options):
        cells.append(await measure(directory, proxies, size, **settings))
        show(cells[-1])
    loading = await measure(directory, 10, 1_000_000, load=LOAD, **settings)
    show(loading, f"every server takes {LOAD} s to load")
    counts = (10, 100, 1000) if options.full else (10, 100)
    memory = [await measure_memory(directory, count, MEMORY_SIZE, options.answer) for count in counts]
    for row in memory:
        print(
            f"memory: {row['proxies']:5.0f} proxies, {MEMORY_SIZE / 1e6:.0f} MB: "
            f"pushing adds {row['added_mib']:.1f} MiB, {row['each_mib']:.2f} MiB a proxy"
        )
    goals = judge(cells, memory)
    for goal, met in goals.items():
        print(f"goal: {goal}: {'met' if met else 'MISSED'}")
    return {
        "python": platform.python_version(),
        "answer": options.answer,
        "cells": [cell.show() for cell in cells],
        "loading": {"load_s": LOAD, **loading.show()},
        "memory": memory,
        "goals": goals,
    }


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="1,000 proxies x 8 MB as well")
    parser.add_argument("--proxies", help="numbers of proxies, with commas")
    parser.add_argument("--sizes", help="bytes, with commas")
    parser.add_argument("--transports", default="", choices=("", "http1"), help="http1: httpx's own, for comparison")
    parser.add_argument(
        "--answer", choices=("full", "short"), default="full", help="how long a 201 is; Kong's is full"
    )
    parser.add_argument("--seconds", type=float, default=25.0, help="per size, at least one round")
    parser.add_argument("--output", default="build/bench-sync.json")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as directory:
        report = asyncio.run(run(options, Path(directory)))
    target = Path(options.output)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(report["goals"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
