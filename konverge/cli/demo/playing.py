"""Plays the demo: load before, the migration (or the naive way) during, load after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from konverge.cli.demo.naive import migrate_naively
from konverge.cli.demo.reporting import DemoReport, ProxyLine, StepLine, Topology, read_latency, read_requests
from konverge.cli.demo.staging import NAMESPACE, RELEASE, Stage, count_watches
from konverge.cli.migrating import render_migration
from konverge.cli.running import run_flow
from konverge.errors import KonvergeError
from konverge.kube.resources import PODS
from konverge.lab.load.process import LoadProcess
from konverge.lab.load.report import LoadReport, Snapshot
from konverge.model.migration import Migration, MigrationSpec
from konverge.model.target import Target
from konverge.operate.fleets import find_fleet, list_instances, parse_fleet
from konverge.operate.migrations import apply_migration, find_migration

BEFORE_SECONDS = 12.0
AFTER_SECONDS = 12.0
SOAK_SECONDS = 1.5
DRAIN_SECONDS = 30.0
"""Streams and WebSockets of the sample last ten seconds."""
REFRESH = 0.5
FLEET = "demo"


@dataclass(slots=True)
class Screen:
    """What the live view shows."""

    console: Console
    phase: str = "before"
    migration: Migration | None = None
    snapshot: Snapshot | None = None
    started: float = field(default_factory=time.monotonic)

    def render(self) -> Group:
        """Return the view: the load first, then the journal."""
        lines = [self.load_line()]
        return Group(*lines, *([render_migration(self.migration)] if self.migration else []))

    def load_line(self) -> Text:
        """Return one line about the load."""
        text = Text.assemble((f"{self.phase:7}", "bold"), f" {time.monotonic() - self.started:5.0f}s  ")
        if self.snapshot is not None:
            counts = self.snapshot.requests
            colour = "green" if counts.failed == 0 else "red"
            text.append(f"{counts.total} requests, ")
            text.append(f"{counts.failed} failed", colour)
            text.append(f", {self.snapshot.rate:.0f}/s, p99 {self.snapshot.p99_ms:.0f} ms")
        return text


async def play(stage: Stage, console: Console, *, naive: bool) -> DemoReport:
    """Run the whole demo on a stage and return its report."""
    screen, started = Screen(console), time.monotonic()
    before = await observe_topology(stage)
    async with LoadProcess(stage.plan) as load:
        await load.mark("before")
        await _watch(screen, stage, load, asyncio.create_task(asyncio.sleep(BEFORE_SECONDS)), "before")
        await load.mark("during")
        act = _act_naively if naive else _act
        acting = asyncio.create_task(act(stage))
        await _watch(screen, stage, load, acting, "during")
        error = acting.exception()
        await load.mark("after")
        await _watch(screen, stage, load, asyncio.create_task(asyncio.sleep(AFTER_SECONDS)), "after")
        result = await load.stop()
    if error is not None:
        raise error
    report = await _compose(stage, result, before, naive=naive, url=acting.result())
    return report.model_copy(update={"seconds": round(time.monotonic() - started, 1)})


async def _act(stage: Stage) -> str:
    target = Target(fleet=FLEET, namespace=NAMESPACE, kubeconfig=stage.kubeconfig)
    spec = MigrationSpec(fleet=FLEET, release=RELEASE, soak_seconds=SOAK_SECONDS, drain_seconds=DRAIN_SECONDS)
    migration = await apply_migration(stage.kube, RELEASE, NAMESPACE, spec)
    parameters = {"target": target.to_json(), "migration": migration.name}
    result = await run_flow("legacy-migration", parameters, server=stage.prefect)
    return result.url


async def _act_naively(stage: Stage) -> str:
    await migrate_naively(stage, FLEET)
    return ""


async def _watch(screen: Screen, stage: Stage, load: LoadProcess, work: asyncio.Task[object], phase: str) -> None:
    """Refresh the view until the work is done; a terminal gets it live, anything else one line per phase."""
    screen.phase = phase
    with Live(screen.render(), console=screen.console, refresh_per_second=4, transient=True) as live:
        while not work.done():
            await asyncio.wait([work], timeout=REFRESH)
            screen.snapshot = await load.snapshot()
            if phase != "before":
                screen.migration = await _quietly(lambda: find_migration(stage.kube, RELEASE, NAMESPACE))
            live.update(screen.render())
    screen.console.print(screen.render() if phase == "during" else screen.load_line())


async def _quietly(read: Callable[[], Awaitable[Migration | None]]) -> Migration | None:
    try:
        return await read()
    except KonvergeError:
        return None


async def observe_topology(stage: Stage) -> Topology:
    """Count the pods that proxy and those that control, and the watches beyond the lab's own."""
    pods = await stage.kube.list_all(PODS, NAMESPACE)
    running = [p for p in pods if not p["metadata"].get("deletionTimestamp")]
    names = [c["name"] for pod in running for c in pod["spec"]["containers"]]
    return Topology(
        proxies=names.count("proxy"),
        controllers=names.count("ingress-controller") + names.count("controller"),
        watches=await count_watches(stage.kube) - stage.idle_watches,
    )


async def _compose(stage: Stage, load: LoadReport, before: Topology, *, naive: bool, url: str) -> DemoReport:
    migration = await _quietly(lambda: find_migration(stage.kube, RELEASE, NAMESPACE))
    steps = migration.status.steps if migration else ()
    return DemoReport(
        mode="naive" if naive else "migration",
        succeeded=naive or load.requests.failed == 0,
        requests=read_requests(load),
        latency=read_latency(load),
        before=before,
        after=await observe_topology(stage),
        proxies=await _read_proxies(stage),
        steps=[StepLine(name=s.step.value, seconds=s.seconds, message=s.message) for s in steps],
        flow_run=url,
        failures=[sample.model_dump(mode="json") for sample in load.failures[:50]],
        schedule=load.schedule.model_dump(mode="json"),
    )


async def _read_proxies(stage: Stage) -> dict[str, ProxyLine]:
    body = await find_fleet(stage.kube, FLEET, NAMESPACE)
    if body is None:
        return {}
    instances = await list_instances(stage.kube, parse_fleet(body))
    return {
        name: ProxyLine(
            loaded_hash=status.loaded_hash,
            synced=status.synced,
            mtls=status.mtls.expires is not None,
            mtls_expires=status.mtls.expires,
            traffic=status.traffic_ready,
        )
        for name, status in instances.items()
    }
