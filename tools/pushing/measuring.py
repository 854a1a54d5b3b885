"""Runs the contenders of one size in turn, round after round: other work on the machine disturbs all alike."""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from konverge.operate.connecting import GatewayPool
from pushing.contenders import KicLoop, prepare_curl, push_curl, push_ours
from pushing.spending import read_cpu, read_cpu_of
from pushing.world import FLEET, World, make_document, serving

Contender = Callable[[dict[str, object], bytes], Awaitable[int]]
ROUNDS = 5


@dataclass
class Cell:
    """The times of one size, in seconds, a list per contender."""

    proxies: int
    size: int
    times: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    servers: dict[str, list[float]] = field(default_factory=dict)
    """How busy the one process of the servers was: its processor seconds per second."""
    bytes: int = 0

    def ratio(self, name: str, to: str) -> float:
        """Return the median of the rounds' ratios."""
        return statistics.median(a / b for a, b in zip(self.times[name], self.times[to], strict=True))

    def show(self) -> dict[str, Any]:
        """Return what goes into the report."""
        shown: dict[str, Any] = {"proxies": self.proxies, "bytes": self.bytes}
        for name, times in self.times.items():
            shown[name] = {"best_s": min(times), "median_s": statistics.median(times), "rounds": len(times)}
            shown[name] |= {"to_curl": self.ratio(name, "curl"), "cpu_s": min(self.cpu[name])}
            shown[name]["servers_busy"] = statistics.median(self.servers[name])
        return shown


class Ring:
    """The contenders on one set of servers."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kept = GatewayPool(FLEET, world.files)
        self.kic = KicLoop(world)
        self.contenders: dict[str, Contender] = {
            "curl": lambda *_: push_curl(world),
            "first": self._push_first,
            "kept": lambda _, content: push_ours(self.kept, world.proxies, content),
            "kic": lambda document, _: self.kic.push(document),
        }

    async def _push_first(self, _: dict[str, object], content: bytes) -> int:
        async with GatewayPool(FLEET, self.world.files) as pool:
            return await push_ours(pool, self.world.proxies, content)

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(self.kept.close(), self.kic.close())


async def measure(
    directory: Path, proxies: int, size: int, *, answer: str, seconds: float, load: float = 0.0
) -> Cell:
    """Measure one size: a round to warm up, then up to five, as long as ``seconds`` are not over."""
    cell, turn = Cell(proxies, size), 0
    async with serving(directory, proxies, answer, load) as world:
        ring = Ring(world)
        deadline = time.monotonic() + seconds
        for number in range(ROUNDS + 1):
            for name, contender in ring.contenders.items():
                turn += 1
                document = make_document(size, turn)
                took, cpu, busy = await _time(world, contender, document, cell, name)
                if number:
                    cell.times.setdefault(name, []).append(took)
                    cell.cpu.setdefault(name, []).append(cpu)
                    cell.servers.setdefault(name, []).append(busy)
            if number and time.monotonic() > deadline:
                break
        await ring.close()
    return cell


async def _time(
    world: World, contender: Contender, document: dict[str, object], cell: Cell, name: str
) -> tuple[float, float, float]:
    content = orjson.dumps(document)
    cell.bytes = len(content)
    if name == "curl":
        prepare_curl(world, content)
    gc.collect()
    spent, served, start = read_cpu(), read_cpu_of(world.pid), time.perf_counter()
    stored = await contender(document, content)
    took = time.perf_counter() - start
    if stored != len(world.proxies):
        raise SystemExit(f"{name}: {stored} of {len(world.proxies)} servers hold the configuration")
    return took, read_cpu() - spent, (read_cpu_of(world.pid) - served) / took


async def measure_memory(directory: Path, proxies: int, size: int, answer: str) -> dict[str, float]:
    """Return the peak memory in MiB that pushing adds to a process which holds nothing but the configuration."""
    async with serving(directory, proxies, answer) as world:
        (directory / "payload").write_bytes(orjson.dumps(make_document(size, 1)))
        spec = {"proxies": [proxy.model_dump(mode="json") for proxy in world.proxies], "directory": str(directory)}
        program = Path(__file__).with_name("remembering.py")
        process = await asyncio.create_subprocess_exec(
            sys.executable, program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate(json.dumps(spec).encode())
        return {"proxies": proxies, "bytes": size, **json.loads(out)}
