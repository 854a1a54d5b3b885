"""Tasks of config-sync and proxy-onboarding: one per phase and wave, never one per proxy."""

from __future__ import annotations

from prefect import task

from konverge.decide.waving import Wave, may_continue, plan_waves
from konverge.model.proxy import Proxy, ProxyOutcome
from konverge.model.target import Target
from konverge.operate.connecting import open_gateways
from konverge.operate.discovering import discover_proxies
from konverge.operate.fleets import load_fleet
from konverge.operate.onboarding import onboard_proxies
from konverge.operate.rendering import compile_revision, gather_sources
from konverge.operate.revisions import load_revision, store_revision
from konverge.operate.syncing import push_wave, refuse_paused, stop_at, summarise_fleet
from tasks.reporting import publish_outcomes
from tasks.running import RETRIES, RETRY_DELAYS, connect, is_retryable, logger


@task(name="render", retries=RETRIES, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=is_retryable)
async def render_revision(target: Target, author: str) -> int:
    """Render the sources once, store the revision, return its number."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        refuse_paused(fleet)
        draft, rendered = compile_revision(fleet, await gather_sources(kube))
        revision = await store_revision(kube, fleet, draft, author=author)
        log = logger()
        log.info("revision %d: %d routes, %d bytes", revision.number, revision.routes, len(revision.content))
        for problem in rendered.problems:
            log.warning("%s: %s", problem.object_ref, problem.message)
        return revision.number


@task(name="discover", retries=RETRIES, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=is_retryable)
async def plan_sync(target: Target) -> list[Wave]:
    """Find the proxies and cut them into waves."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        waves = plan_waves(await discover_proxies(kube, fleet), fleet.spec.rollout)
        logger().info("waves: %s", ", ".join(f"{w.name} ({len(w.proxies)})" for w in waves) or "no proxies")
        return list(waves)


@task(
    name="push-wave",
    task_run_name="push-{wave.name}",
    retries=1,
    retry_delay_seconds=2,
    retry_condition_fn=is_retryable,
    tags=["push"],
)
async def sync_wave(target: Target, revision_number: int, wave: Wave) -> list[ProxyOutcome]:
    """Bring a wave to a revision; raises where the revision proves harmful, never for a sick proxy."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        revision = await load_revision(kube, fleet, revision_number)
        async with open_gateways(kube, fleet) as gateways:
            outcomes = await push_wave(kube, fleet, gateways, revision, wave)
        await publish_outcomes(fleet.name, wave.name, outcomes)
        if not may_continue(outcomes, fleet.spec.rollout):
            raise stop_at(wave, outcomes, revision)
        return outcomes


@task(name="summarise", retries=RETRIES, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=is_retryable)
async def summarise(target: Target, revision_number: int) -> dict[str, int]:
    """Write the fleet's status and return its counts."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        revision = await load_revision(kube, fleet, revision_number)
        status = await summarise_fleet(kube, fleet, revision)
        return {"revision": revision_number, **status.counts.model_dump()}


@task(name="onboard", retries=RETRIES, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=is_retryable)
async def onboard_batch(target: Target, pods: list[str]) -> list[ProxyOutcome]:
    """Onboard the named pods, or with an empty list every proxy that is not ready, in one batch."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        refuse_paused(fleet)
        revision = await load_revision(kube, fleet, fleet.status.current_revision)
        proxies = select_proxies(await discover_proxies(kube, fleet), pods)
        async with open_gateways(kube, fleet) as gateways:
            outcomes = await onboard_proxies(kube, fleet, gateways, revision, proxies)
        await publish_outcomes(fleet.name, "onboarding", outcomes)
        return outcomes


def select_proxies(proxies: list[Proxy], pods: list[str]) -> list[Proxy]:
    """Return the named proxies, or those that are not ready."""
    return [proxy for proxy in proxies if (proxy.name in pods if pods else not proxy.ready)]
