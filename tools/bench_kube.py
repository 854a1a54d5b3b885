"""Counts what the API server has to do for many proxies: one controller for all, against a controller in every pod.

The lab's API server tells it by its own counters, under the names of a real one. Both topologies get the same
sources and the same changes. Konverge is the controller as a process with bare gateways behind mutual TLS
(``tools/changing/serving.py``); the legacy topology is the lab's per-pod controller, many in one process
(``tools/counting/sidecars.py``). Nobody plays the kubelet while it is counted.

Columns: watches that are open; requests per minute at rest, the renewal of watches included; per change of one
Ingress, requests and writes (both without leases, which the leader renews whatever happens).

Usage: ``python tools/bench_kube.py [--proxies 3,30,300] [--legacy 3,30,100] [--seconds 60] [--changes 5]``. Prints a
table and writes ``build/bench-kube.json``; the exit code is 1 where Konverge misses a goal. A per-pod controller
holds 25 TLS connections: 300 of them do not fit on two cores, so the legacy topology is measured at fewer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench_change import Journal, settled  # noqa: E402
from changing.bare import BareTown  # noqa: E402
from counting.counters import Reading, read_counters  # noqa: E402
from reporting import write_report  # noqa: E402

from konverge.kube.resources import ENDPOINT_SLICES, INGRESS_CLASSES, INGRESSES, SERVICES, Object  # noqa: E402
from konverge.lab.addressing import claim_number  # noqa: E402
from konverge.lab.legacy import kong_crds  # noqa: E402
from konverge.lab.pod import raise_file_limit  # noqa: E402
from konverge.lab.supervisor.furnishing import create_all  # noqa: E402
from tests.chaos.town import NAMESPACE, Process, backend, until  # noqa: E402

ROUTES = 50
SERVICE = "legacy-proxy"
QUIET_SECONDS = 6.0
"""Without a write for so long everybody has told what there is to tell: events and states are written in batches."""
START_SECONDS = 600.0
RENEWALS = 0.2
"""Requests per minute and watch: clients renew one every 270 to 330 s, and count it at its end. Computed, since it
would take half an hour to see it evenly spread."""
WATCH_SLACK, IDLE_SLACK, WRITE_SLACK = 0, 1.5, 12
"""Watches may not differ at all, requests at rest by a factor, writes per change by a number beside one per proxy."""


@dataclass
class Row:
    """One topology with one number of proxies."""

    topology: str
    proxies: int
    watches: int
    idle_per_minute: float
    requests_per_change: float
    writes_per_change: float
    idle: dict[str, int] = field(default_factory=dict)
    change: dict[str, int] = field(default_factory=dict)
    """What the numbers consist of."""

    def show(self) -> str:
        """Return a line of the table."""
        return (
            f"{self.topology:9} {self.proxies:7d} {self.watches:8d} {self.idle_per_minute:13.1f} "
            f"{self.requests_per_change:16.1f} {self.writes_per_change:14.1f}"
        )


class City(BareTown):
    """A town without a kubelet: pods and endpoints are written once."""

    async def open_quiet(self) -> None:
        """Start the API server with the sources."""
        await self.open(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await create_all(self.kube, kong_crds())
        kong = {"metadata": {"name": "kong"}, "spec": {"controller": "ingress-controllers.konghq.com/kong"}}
        await self.kube.apply(INGRESS_CLASSES, {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", **kong})
        for number in range(ROUTES):
            await self.change(f"app-{number}")
        await self._publish()

    async def _publish(self) -> None:
        """The Service whose address the per-pod controllers write into every Ingress."""
        spec = {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80}], "selector": {"app": "legacy"}}
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE, "namespace": NAMESPACE}}
        await self.kube.apply(SERVICES, {**body, "spec": spec})
        status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}
        await self.kube.patch(SERVICES, SERVICE, status, NAMESPACE, subresource="status")

    async def add_gateways(self, count: int) -> None:
        """Start bare gateways; their endpoints do not change any more."""
        await self.add_bare(count)
        await self.kube.apply(ENDPOINT_SLICES, self._endpoints())

    def _endpoints(self) -> Object:
        endpoints = [
            {
                "addresses": [gateway.ip],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "targetRef": {"kind": "Pod", "name": gateway.name},
            }
            for gateway in self.gateways
        ]
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "shop-admin",
                "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": self.fleet.admin_service},
            },
            "addressType": "IPv4",
            "ports": [{"name": "kong-admin-tls", "port": 8444, "protocol": "TCP"}],
            "endpoints": endpoints,
        }


async def wait_quiet(city: City) -> Reading:
    """Wait until nothing has been written for some seconds; returns the counters."""
    last, since = await read_counters(city.kube), time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS:
        await asyncio.sleep(0.5)
        now = await read_counters(city.kube)
        if now.writes != last.writes:
            since = time.monotonic()
        last = now
    return last


async def count(
    city: City, topology: str, proxies: int, options: argparse.Namespace, done: Callable[[int], Awaitable[Any]]
) -> Row:
    """Rest, then change; ``done`` waits until the n-th change is on every proxy."""
    before = await wait_quiet(city)
    await asyncio.sleep(options.seconds)
    rested = await read_counters(city.kube)
    ended = sum(number for (verb, _), number in rested.since(before).items() if verb == "WATCH")
    idle = (rested.total - before.total - ended) * 60 / options.seconds + rested.watches * RENEWALS
    start = await read_counters(city.kube)
    for number in range(options.changes):
        _, ingress = backend(f"app-{number}")[1]
        patch = {"metadata": {"annotations": {"konghq.com/regex-priority": str(number + 1)}}}
        await city.kube.patch(INGRESSES, ingress["metadata"]["name"], patch, ingress["metadata"]["namespace"])
        await done(number + 1)
    end = await wait_quiet(city)
    requests = (end.total - end.leases) - (start.total - start.leases)
    writes = end.writes - start.writes - options.changes
    return Row(
        topology,
        proxies,
        rested.watches,
        idle,
        requests / options.changes,
        writes / options.changes,
        name_counts(rested, before),
        name_counts(end, start),
    )


def name_counts(after: Reading, before: Reading) -> dict[str, int]:
    """Return the difference by ``VERB resource``, most first."""
    return {f"{verb} {name or '(path)'}": number for (verb, name), number in after.since(before).most_common()}


async def measure_konverge(city: City, proxies: int, options: argparse.Namespace, _: AsyncExitStack) -> Row:
    """Measure one controller with that many proxies."""
    await city.add_gateways(proxies)
    controller = await city.add_controller()
    journal = Journal(controller.process.log)
    await until(lambda: settled(journal, proxies), "the fleet has the first revision", START_SECONDS)

    async def done(_: int) -> None:
        known = journal.stored()[0]

        async def newer() -> bool:
            return await settled(journal, proxies) and journal.stored()[0] > known

        await until(newer, "the change is on every proxy", START_SECONDS)

    return await count(city, "konverge", proxies, options, done)


async def measure_legacy(city: City, proxies: int, options: argparse.Namespace, stack: AsyncExitStack) -> Row:
    """Measure that many per-pod controllers."""
    words = ["-m", "counting.sidecars", str(proxies), city.api.kubeconfig, f"{NAMESPACE}/{SERVICE}"]
    process = Process(city.directory / "sidecars.log", *words)
    await process.start(stdout=asyncio.subprocess.PIPE, cwd=ROOT / "tools")
    stack.push_async_callback(process.end)
    assert process.running is not None
    assert process.running.stdout is not None
    line = await asyncio.wait_for(process.running.stdout.readline(), START_SECONDS)
    http = await stack.enter_async_context(httpx.AsyncClient(timeout=60, trust_env=False))
    url = f"http://127.0.0.1:{json.loads(line)['port']}/pushes"

    async def pushes() -> int:
        return int((await http.get(url)).json()["pushes"])

    reached = 0

    async def done(_: int) -> None:
        async def enough() -> bool:
            return await pushes() >= reached + proxies

        nonlocal reached
        await until(enough, "every controller has pushed the change", START_SECONDS)
        reached = await pushes()

    await wait_quiet(city)
    reached = await pushes()
    return await count(city, "legacy", proxies, options, done)


MEASURES = {"konverge": measure_konverge, "legacy": measure_legacy}


async def measure(topology: str, proxies: int, options: argparse.Namespace) -> Row:
    """Measure one topology in a city of its own."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="konverge-bench-")))
        city = City(directory, claim_number(directory / "claims"))
        stack.push_async_callback(city.close)
        await city.open_quiet()
        try:
            return await MEASURES[topology](city, proxies, options, stack)
        except (AssertionError, TimeoutError, ValueError):
            await asyncio.to_thread(show_logs, directory)
            raise


def show_logs(directory: Path) -> None:
    """Print the ends of all logs."""
    for log in directory.glob("*.log"):
        print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-20:], sep="\n")


def judge(rows: list[Row]) -> dict[str, bool]:
    """Return for each goal whether Konverge meets it."""
    ours = [row for row in rows if row.topology == "konverge"]
    idle, watches = [row.idle_per_minute for row in ours], [row.watches for row in ours]
    return {
        "watches are constant": max(watches) - min(watches) <= WATCH_SLACK,
        f"requests at rest are constant (within {IDLE_SLACK} x)": max(idle) <= IDLE_SLACK * min(idle),
        f"writes per change: at most one per proxy and {WRITE_SLACK}": all(
            row.writes_per_change <= row.proxies + WRITE_SLACK for row in ours
        ),
    }


def compare(rows: list[Row]) -> list[str]:
    """Return the ratios of the topologies where both were measured."""
    found = {(row.topology, row.proxies): row for row in rows}
    lines = []
    for (topology, proxies), legacy in found.items():
        ours = found.get(("konverge", proxies))
        if topology != "legacy" or ours is None:
            continue
        lines.append(
            f"{proxies:7d} proxies: {legacy.watches / ours.watches:.1f} x the watches, "
            f"{legacy.idle_per_minute / max(ours.idle_per_minute, 1):.1f} x the requests at rest, "
            f"{legacy.requests_per_change / max(ours.requests_per_change, 1):.1f} x the requests and "
            f"{legacy.writes_per_change / max(ours.writes_per_change, 1):.1f} x the writes of a change"
        )
    return lines


async def run(options: argparse.Namespace) -> list[Row]:
    """Measure everything, one after the other."""
    heads = (("topology", 9), ("proxies", 7), ("watches", 8), ("idle req/min", 13), ("requests/change", 16))
    print("topology ", *(f"{head:>{width}}" for head, width in (*heads[1:], ("writes/change", 14))))
    rows = []
    for topology, numbers in (("konverge", options.proxies), ("legacy", options.legacy)):
        for proxies in (int(number) for number in numbers.split(",") if number):
            rows.append(await measure(topology, proxies, options))
            print(rows[-1].show(), flush=True)
    return rows


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxies", default="3,30,300", help="numbers of proxies with one controller")
    parser.add_argument("--legacy", default="3,30,100", help="numbers of proxies with a controller each")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long rest is counted")
    parser.add_argument("--changes", type=int, default=5, help="changes, one after the other")
    parser.add_argument("--output", default=str(ROOT / "build" / "bench-kube.json"))
    options = parser.parse_args()
    raise_file_limit()
    rows = asyncio.run(run(options))
    print(*compare(rows), sep="\n")
    goals = judge(rows)
    for goal, met in goals.items():
        print(f"goal: {goal}: {'met' if met else 'MISSED'}")
    report = {"options": vars(options), "rows": [asdict(row) for row in rows], "goals": goals}
    write_report(options.output, report)
    return 0 if all(goals.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
