"""Tasks of config-sync and proxy-onboarding: one per phase and wave, never one per proxy."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE

from konverge.decide.waving import Wave, plan_waves
from konverge.errors import VerificationFailed
from konverge.kube.client import KubeClient
from konverge.kube.resources import Object
from konverge.model.condition import Outcome
from konverge.model.fleet import Fleet
from konverge.model.proxy import Proxy, ProxyOutcome
from konverge.model.revision import Revision
from konverge.model.target import Target
from konverge.operate.claiming import Claim, claim_fleet
from konverge.operate.connecting import open_gateways
from konverge.operate.discovering import discover_proxies
from konverge.operate.falling_back import Desired, sync_sources
from konverge.operate.fleets import load_fleet
from konverge.operate.onboarding import onboard_proxies
from konverge.operate.ports import Gateways
from konverge.operate.rendering import compile_revision, gather_sources
from konverge.operate.revisions import load_revision, read_versions
from konverge.operate.syncing import (
    Observer,
    SyncReport,
    Verdict,
    WaveReport,
    refuse_paused,
    summarise_fleet,
    sync_fleet,
)
from tasks.reporting import Progress, publish_outcomes
from tasks.running import RETRIES, RETRY_DELAYS, connect, is_retryable, logger

Result = TypeVar("Result")
Work = Callable[[], Awaitable[Any]]
LISTEN_SECONDS, LISTEN_PAUSE = 15.0, 0.5
"""How long an onboarding waits for pods whose Kong has not started yet, and how often it looks."""
PUBLISH_SECONDS = 30.0
"""How long a run that has ended waits for the Prefect server to take its artifacts."""
Tell = Callable[[dict[str, Any]], None]
"""Takes what a run tells on its way, for the command that waits for it."""


@task(
    name="sync-step",
    task_run_name="{name}",
    retries=1,
    retry_delay_seconds=2,
    retry_condition_fn=is_retryable,
    cache_policy=NO_CACHE,
)
async def run_step(name: str, work: Work) -> Any:  # noqa: ARG001 - the name is that of the task run
    """Do a piece of a sync: a wave, or the way back. The work carries its own state: nothing of it is recorded.

    It has no tag: for one, Prefect asks its server for a slot before each run, also where no limit is set, and
    that takes up to two seconds now and then (``make bench-sync``, part flow: 1.7 instead of 1.05 times the engine).
    """
    return await work()


@task(
    name="sync-phase",
    task_run_name="{name}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS,
    retry_condition_fn=is_retryable,
    cache_policy=NO_CACHE,
)
async def run_phase(name: str, work: Work) -> Any:  # noqa: ARG001 - the name is that of the task run
    """Do a phase around the waves: discover, render, summarise."""
    return await work()


class FlowObserver(Observer):
    """Makes a task of each wave, a table artifact of its outcomes, and one progress artifact of the whole.

    What is published is published in order, beside the waves: no proxy waits for the Prefect server. :meth:`finish`
    waits for it.
    """

    def __init__(self, fleet: Fleet, key: str, tell: Tell) -> None:
        self._fleet = fleet
        self._tell = tell
        self._progress = Progress(key)
        self._turn = asyncio.Lock()
        self._publishing: list[asyncio.Task[None]] = []

    async def run_step(self, name: str, work: Callable[[], Awaitable[Result]]) -> Result:
        """Run the work as a task."""
        result: Result = await run_step(name, work)
        return result

    async def note_plan(self, revision: Revision, waves: Sequence[Wave]) -> None:
        """Tell what is to come."""
        plan = ", ".join(f"{w.name} ({len(w.proxies)})" for w in waves) or "no proxies"
        logger().info("revision %d: %s", revision.number, plan)
        count, what = sum(len(wave.proxies) for wave in waves), f"revision {revision.number}"
        self._publish(lambda: self._progress.expect(count, what))

    async def note_wave(self, report: WaveReport) -> None:
        """Publish the table of a wave."""
        self._publish(lambda: publish_outcomes(self._fleet.name, report.wave.name, report.outcomes))
        self._publish(lambda: self._progress.advance(len(report.outcomes)))
        good = sum(1 for outcome in report.outcomes if outcome.ok)
        message = f"revision {report.revision}: {report.wave.name}: {good} of {len(report.outcomes)} proxies verified"
        self._tell({"wave": report.wave.name, "message": message})
        if report.judgement is not None:
            logger().info("%s: %s", report.wave.name, report.judgement.outcome.message)

    def _publish(self, work: Callable[[], Awaitable[None]]) -> None:
        async def publish() -> None:
            async with self._turn:
                await work()

        self._publishing.append(asyncio.create_task(publish()))

    async def finish(self) -> None:
        """Wait until everything is published; what cannot be is worth a warning and no failed sync."""
        if not self._publishing:
            return
        await asyncio.wait(self._publishing, timeout=PUBLISH_SECONDS)
        for late in self._publishing:
            late.cancel()
        for error in await asyncio.gather(*self._publishing, return_exceptions=True):
            if error is not None:
                logger().warning("an artifact was not published: %s: %s", type(error).__name__, error)
        self._publishing.clear()


@asynccontextmanager
async def observing(observer: FlowObserver) -> AsyncIterator[FlowObserver]:
    """Publish everything that was noted in the block before it ends, in whatever way."""
    try:
        yield observer
    finally:
        await observer.finish()


class Session:
    """One sync of a fleet by a flow: connection, gateways, the claim, and what was discovered."""

    def __init__(
        self,
        kube: KubeClient,
        fleet: Fleet,
        gateways: Gateways,
        proxies: list[Proxy],
        claim: Claim | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.kube = kube
        self.fleet = fleet
        self.gateways = gateways
        self.proxies = proxies
        self._claim = claim
        self._observer = observer or Observer()

    async def render(self, author: str) -> Desired:
        """Render the sources once."""

        async def work() -> Desired:
            sources: list[Object] = await gather_sources(self.kube)
            draft, rendered = compile_revision(self.fleet, sources)
            logger().info("rendered: %d routes, %d bytes", draft.routes, len(draft.content))
            for problem in rendered.problems:
                logger().warning("%s: %s", problem.object_ref, problem.message)
            return Desired(draft, lambda: sources, author, rendered.problems, read_versions(sources))

        desired: Desired = await run_phase("render", work)
        return desired

    async def load(self, number: int) -> Revision:
        """Read a stored revision."""

        async def work() -> Revision:
            return await load_revision(self.kube, self.fleet, number)

        revision: Revision = await run_phase("load", work)
        return revision

    async def sync(self, desired: Desired | Revision, proxies: Sequence[Proxy]) -> SyncReport:
        """Bring proxies to a rendering, falling back where it is refused, or to a stored revision."""
        shared: dict[str, Any] = {
            "previous": await self._load_previous(desired.number if isinstance(desired, Revision) else None),
            "superseded": self._claim.superseded if self._claim else None,
            "may_act": self._claim.may_act if self._claim else None,
            "observer": self._observer,
        }
        if isinstance(desired, Revision):
            report = await sync_fleet(self.kube, self.fleet, self.gateways, desired, proxies, **shared)
        else:
            report = await sync_sources(self.kube, self.fleet, self.gateways, desired, proxies, **shared)
        logger().info("%s: %s", report.verdict.value, report.outcome.message)
        for problem in report.problems:
            logger().warning("%s: %s: %s", problem.object_ref, problem.reason, problem.message)
        return report

    async def _load_previous(self, number: int | None) -> Revision | None:
        """Read the last good revision; None where there is none, or where it is what is to be pushed."""
        good = self.fleet.status.last_good_revision
        return await load_revision(self.kube, self.fleet, good) if good and good != number else None

    def pick_canary(self) -> list[Proxy]:
        """Return the proxies that get a revision before the shards start."""
        waves = plan_waves(self.proxies, self.fleet.spec.rollout)
        return list(waves[0].proxies) if waves else []

    async def take_back(self, report: SyncReport, harm: VerificationFailed) -> SyncReport:
        """Bring everybody to the last good revision after a shard found harm."""
        outcome = Outcome(reason=harm.reason, message=harm.message, hint=harm.hint)
        previous = await self._load_previous(report.revision.number)
        if previous is None or self.fleet.spec.rollout.on_harm == "hold":
            return replace(report, verdict=Verdict.HELD, outcome=outcome)
        back = await sync_fleet(self.kube, self.fleet, self.gateways, previous, self.proxies, observer=self._observer)
        return replace(
            report, revision=previous, verdict=Verdict.ROLLED_BACK, outcome=outcome, went_back=back.outcomes
        )

    async def merge(self, report: SyncReport, verdict: Verdict) -> SyncReport:
        """Return the report of the canary as that of the whole fleet."""
        return replace(report, verdict=verdict)

    async def summarise(self, report: SyncReport) -> dict[str, int | str]:
        """Write the fleet's status and return its counts."""

        async def work() -> dict[str, int | str]:
            harmful = report.harmful and report.revision.number == report.pushed
            status = await summarise_fleet(
                self.kube, self.fleet, report.revision, harmful=harmful, setback=report.setback
            )
            return {
                "revision": report.revision.number,
                "verdict": report.verdict.value,
                **status.counts.model_dump(),
            }

        counts: dict[str, int | str] = await run_phase("summarise", work)
        return counts


async def _discover(kube: KubeClient, target: Target) -> tuple[Fleet, list[Proxy]]:
    async def work() -> tuple[Fleet, list[Proxy]]:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        refuse_paused(fleet)
        return fleet, await discover_proxies(kube, fleet)

    found: tuple[Fleet, list[Proxy]] = await run_phase("discover", work)
    return found


@asynccontextmanager
async def open_session(target: Target, tell: Tell) -> AsyncIterator[Session]:
    """Wait for the fleet's turn and open everything that a sync needs."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        refuse_paused(fleet)
        async with claim_fleet(kube, fleet) as claim:
            fleet, proxies = await _discover(kube, target)
            async with (
                open_gateways(kube, fleet) as gateways,
                observing(FlowObserver(fleet, f"{fleet.name}-sync", tell)) as observer,
            ):
                yield Session(kube, fleet, gateways, proxies, claim, observer)


@asynccontextmanager
async def open_shard(
    target: Target, shard: int, shards: int, done: Sequence[str], tell: Tell
) -> AsyncIterator[Session]:
    """Open one shard of a fleet whose sync holds the claim already."""
    async with connect(target) as kube:
        fleet, proxies = await _discover(kube, target)
        mine = [p for p in proxies if p.name not in done and choose_shard(p, shards) == shard]
        # The canary has taken the revision: the first wave of a shard may be a full one.
        rollout = fleet.spec.rollout.model_copy(update={"canary": 0})
        fleet = fleet.model_copy(update={"spec": fleet.spec.model_copy(update={"rollout": rollout})})
        async with (
            open_gateways(kube, fleet) as gateways,
            observing(FlowObserver(fleet, f"{fleet.name}-sync-shard-{shard}", tell)) as observer,
        ):
            yield Session(kube, fleet, gateways, mine, observer=observer)


def choose_shard(proxy: Proxy, shards: int) -> int:
    """Return the shard of a proxy: the same in every process and at any size of the fleet."""
    return zlib.crc32(proxy.name.encode()) % shards


@task(name="onboard", retries=RETRIES, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=is_retryable)
async def onboard_batch(target: Target, pods: list[str]) -> list[ProxyOutcome]:
    """Onboard the named pods, or with an empty list every proxy that is not ready, in one batch."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        refuse_paused(fleet)
        revision = await load_revision(kube, fleet, fleet.status.current_revision)
        proxies = select_proxies(await discover_proxies(kube, fleet), pods)
        async with open_gateways(kube, fleet) as gateways:
            outcomes = await _onboard_listening(kube, fleet, gateways, revision, proxies)
        await publish_outcomes(fleet.name, "onboarding", outcomes)
        return outcomes


async def _onboard_listening(
    kube: KubeClient, fleet: Fleet, gateways: Gateways, revision: Revision, proxies: list[Proxy]
) -> list[ProxyOutcome]:
    """Onboard a batch; those that do not listen yet again and again for a while, as another run would cost more."""
    found: dict[str, ProxyOutcome] = {}
    deadline, waiting = time.monotonic() + LISTEN_SECONDS, proxies
    while waiting:
        for outcome in await onboard_proxies(kube, fleet, gateways, revision, waiting):
            found[outcome.proxy] = outcome
        waiting = [proxy for proxy in waiting if found[proxy.name].outcome.reason == "ProxyUnreachable"]
        if not waiting or time.monotonic() > deadline:
            break
        await asyncio.sleep(LISTEN_PAUSE)
    return [found[proxy.name] for proxy in proxies]


def select_proxies(proxies: list[Proxy], pods: list[str]) -> list[Proxy]:
    """Return the named proxies, or those that are not ready."""
    return [proxy for proxy in proxies if (proxy.name in pods if pods else not proxy.ready)]
