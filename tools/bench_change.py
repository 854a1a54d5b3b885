"""Times a change from the write to the API until it is verified on every proxy, through the controller as a process.

The lab's API server holds 3,000 Ingresses with their Services and EndpointSlices; ten bare gateways
(``tools/changing/serving.py``) cost next to nothing, so that what is measured is the controller: watch, debounce,
translation, storing the revision, pushes over kept connections, read-back and eight probes per proxy. What a proxy
needs for loading comes on top and is printed apart. Each change touches one Ingress.

Usage: ``python tools/bench_change.py [--proxies 10] [--routes 3000] [--changes 30] [--load SECONDS]``. Prints a table
and writes ``build/bench-change.json``; the exit code is 1 where the median misses its goal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench_render import TEAMS, make_objects  # noqa: E402
from changing.bare import BareTown  # noqa: E402
from reporting import write_report  # noqa: E402

from konverge.kube.resources import ENDPOINT_SLICES, INGRESS_CLASSES, INGRESSES, NAMESPACES, SERVICES  # noqa: E402
from konverge.lab.addressing import claim_number  # noqa: E402
from tests.chaos.town import Process, Town, until  # noqa: E402

GOAL, MUST = 0.3, 1.0
"""Seconds of the median beyond what a proxy needs to load: the goal, and what must hold."""
LOAD_PER_ROUTE, ROUTERS = 0.00036, 0.6
"""What Kong 3.9 was measured to need: for loading, per route, and for its routers, at most."""
RESOURCES = {r.kind: r for r in (INGRESS_CLASSES, SERVICES, ENDPOINT_SLICES, INGRESSES)}


class Bench(BareTown):
    """A town whose processes are timed."""

    def spent(self) -> tuple[float, float, float]:
        """CPU seconds so far of the controller, of all gateways, and of the API server."""
        assert self.bare is not None
        return read_cpu(self.controllers[0].process), read_cpu(self.bare), read_cpu(self.api.process)


def read_cpu(process: Process) -> float:
    """CPU seconds of a process: the 14th and 15th field of /proc/PID/stat, see proc(5)."""
    assert process.running is not None
    words = Path(f"/proc/{process.running.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


async def fill(town: Town, routes: int) -> list[dict[str, Any]]:
    """Create the objects; returns the Ingresses."""
    for team in range(TEAMS):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"team-{team}"}}
        await town.kube.create(NAMESPACES, body)
    objects = [body for body in make_objects(routes) if body["kind"] in RESOURCES]
    slots = asyncio.Semaphore(16)

    async def create(body: dict[str, Any]) -> dict[str, Any]:
        for name in ("uid", "resourceVersion", "generation", "creationTimestamp"):
            body["metadata"].pop(name, None)
        body.get("spec", {}).pop("clusterIP", None)
        body["metadata"].pop("annotations", None)  # they name plugins, whose CRD is not there
        async with slots:
            return await town.kube.create(RESOURCES[body["kind"]], body)

    made = await asyncio.gather(*(create(body) for body in objects))
    return [body for body in made if body["kind"] == "Ingress"]


class Journal:
    """The controller's log as it grows."""

    def __init__(self, path: Path) -> None:
        self.path, self._place = path, 0
        self.lines: list[dict[str, Any]] = []

    def read(self) -> None:
        """Take the complete lines that came since."""
        with self.path.open("rb") as file:
            file.seek(self._place)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._place += len(whole)
        self.lines += [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]

    def routed(self, revision: int) -> list[float]:
        """When each proxy was verified with a revision."""
        end = f": revision {revision} is loaded and routed"
        return [_moment(line) for line in self.lines if line["message"].endswith(end)]

    def stored(self) -> tuple[int, float]:
        """The newest revision that was stored, and when."""
        for line in reversed(self.lines):
            words = line["message"].split()
            if words[0] == "revision" and "routes," in words:
                return int(words[1]), _moment(line)
        return 0, 0.0


def _moment(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Build the town, make the changes, return the times."""
    with tempfile.TemporaryDirectory(prefix="konverge-bench-") as place:
        directory = Path(place)
        town = Bench(directory, claim_number(directory / "claims"))
        try:
            await town.open(0, rollout={"canary": 1, "growth": 16})
            started = time.monotonic()
            ingresses = await fill(town, options.routes)
            print(f"{options.routes} routes created in {time.monotonic() - started:.0f} s", flush=True)
            await town.add_bare(options.proxies, options.load)
            controller = await town.add_controller()
            journal = Journal(controller.process.log)
            await until(lambda: settled(journal, options.proxies), "the fleet serves the first revision", 120)
            return await measure(town, journal, ingresses, options)
        except AssertionError:
            print(*journal.path.read_text().splitlines()[-20:], sep="\n")
            raise
        finally:
            await town.close()


async def settled(journal: Journal, proxies: int) -> bool:
    """Whether every proxy runs the newest revision."""
    journal.read()
    return len(journal.routed(journal.stored()[0])) >= proxies


async def wait_routed(journal: Journal, revision: int, proxies: int) -> list[float]:
    """Wait until every proxy was verified with a revision."""

    async def check() -> bool:
        journal.read()
        return len(journal.routed(revision)) >= proxies

    await until(check, f"revision {revision} on {proxies} proxies", 60)
    return journal.routed(revision)


async def measure(
    town: Bench, journal: Journal, ingresses: list[dict[str, Any]], options: argparse.Namespace
) -> dict[str, Any]:
    """Make changes one after the other."""
    total, until_stored = [], []
    await asyncio.sleep(2)
    spent = town.spent()
    for number in range(options.changes):
        before, _ = journal.stored()
        metadata = ingresses[number * 37 % len(ingresses)]["metadata"]
        patch = {"metadata": {"annotations": {"konghq.com/regex-priority": str(number + 1)}}}
        at = time.time()
        await town.kube.patch(INGRESSES, metadata["name"], patch, metadata["namespace"])
        times = await wait_routed(journal, before + 1, options.proxies)
        total.append(max(times) - at)
        until_stored.append(journal.stored()[1] - at)
        await asyncio.sleep(options.pause)
    used = [(after - before) / options.changes for before, after in zip(spent, town.spent(), strict=True)]
    return {"total": total, "until_stored": until_stored, "cpu": used}


def report(times: dict[str, list[float]], options: argparse.Namespace) -> bool:
    """Print and write the numbers; True where the median holds."""
    beyond = [seconds - waves(options.proxies) * options.load for seconds in times["total"]]
    rows = {
        "beyond the proxies' loading": beyond,
        "until the revision is stored": times["until_stored"],
        "from there to verified on all": [a - b for a, b in zip(beyond, times["until_stored"], strict=True)],
    }
    print(f"{options.proxies} proxies, {options.routes} routes, {len(beyond)} changes, seconds:")
    for name, found in rows.items():
        ordered = sorted(found)
        p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
        print(f"  {name:32s} median {statistics.median(found):6.3f}   p99 {p99:6.3f}   best {ordered[0]:6.3f}")
    engine, proxies, api = times["cpu"]
    print(f"CPU seconds per change: controller {engine:.3f}, all proxies {proxies:.3f}, API server {api:.3f};")
    print(f"they share {os.cpu_count()} cores, and what else runs: load {os.getloadavg()[0]:.1f}")
    load = options.routes * LOAD_PER_ROUTE
    print(f"A Kong of this size adds {load:.1f} s of loading per wave and up to {ROUTERS} s for its routers.")
    report = {"options": vars(options), "seconds": times, "beyond": beyond}
    write_report(ROOT / "build" / "bench-change.json", report)
    median = statistics.median(beyond)
    print(f"goal {GOAL} s: {'held' if median <= GOAL else 'missed'}; at most {MUST} s: {median <= MUST}")
    return median <= MUST


def waves(proxies: int) -> int:
    """Return how many waves load one after the other: the canary and, up to 17 proxies, one more."""
    return 1 if proxies <= 1 else 2


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxies", type=int, default=10)
    parser.add_argument("--routes", type=int, default=3000)
    parser.add_argument("--changes", type=int, default=30)
    parser.add_argument("--load", type=float, default=0.0, help="seconds that a bare gateway takes to load")
    parser.add_argument("--pause", type=float, default=1.5, help="seconds between changes")
    options = parser.parse_args()
    return 0 if report(asyncio.run(run(options)), options) else 1


if __name__ == "__main__":
    sys.exit(main())
