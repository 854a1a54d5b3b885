"""Tasks of cert-rotation: when to begin, what to do, one per step, and what is left behind for people to look at."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from prefect import task

from konverge.decide.rotating import find_revoked, plan_rotation
from konverge.decide.windows import Start, plan_start
from konverge.model.fleet import Fleet
from konverge.model.rotation import ProxyWork, RotationKind, RotationReport, RotationStep, StepReport
from konverge.model.target import Target
from konverge.operate.attesting import record_identities
from konverge.operate.clock import utc_now
from konverge.operate.discovering import discover_proxies
from konverge.operate.fleets import load_fleet
from konverge.operate.following import follow_issuer, is_behind
from konverge.operate.identities import ensure_identity, load_keys
from konverge.operate.observing import Observer, list_certificates, list_names, list_revocable, observe
from konverge.operate.reserving import Reservation, reserve_rotation
from konverge.operate.rotating import Rotation, run_step
from konverge.operate.syncing import refuse_paused
from tasks.announcing import announce
from tasks.running import RETRIES, RETRY_DELAYS, connect, is_retryable, logger
from tasks.timelines import publish_tables, record_events


@task(name="plan-start", retries=RETRIES, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=is_retryable)
async def find_start(target: Target, jitter_seconds: float) -> Start:
    """Return when a scheduled run may begin: after a random delay, or in the next maintenance window."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
    start = plan_start(fleet.spec.identity.windows, utc_now(), jitter_seconds, random.random())
    if start.postponed_until is not None:
        logger().info("outside the maintenance windows; the next opens at %s", start.postponed_until)
    else:
        logger().info("begins in %.0f s", start.delay)
    return start


@asynccontextmanager
async def hold_rotation(target: Target) -> AsyncIterator[Reservation]:
    """Hold the fleet's rotation lease while the block runs; no task, since it lasts as long as all of them."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        refuse_paused(fleet)
        async with reserve_rotation(kube, fleet) as reservation:
            yield reservation


@task(name="plan-rotation", retries=RETRIES, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=is_retryable)
async def plan_steps(target: Target, kind: str, revoke: str, since: datetime | None) -> list[str]:
    """Return the steps to take, in order; a rotation that was begun is finished."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        refuse_paused(fleet)
        keys = await ensure_identity(kube, fleet)
        if not keys.owns_authority:
            return await _plan_following(Rotation(kube, fleet, since=since), kind)
        observer = Observer.of(keys)
        seen = await observer.look(await discover_proxies(kube, fleet))
        revoked = find_revoked(revoke, list_revocable(keys), observer.stored.current) if revoke else ""
        steps = plan_rotation(
            RotationKind(kind), observe(keys, since=since), seen, revoked=revoked, short=_restarts(fleet)
        )
        logger().info("steps: %s", ", ".join(steps) or "nothing is due")
        return [step.value for step in steps]


async def _plan_following(rotation: Rotation, kind: str) -> list[str]:
    """Return one step where the issuer is ahead; an authority that is not ours is not rotated from here."""
    keys = await rotation.keys()
    if kind in (RotationKind.AUTHORITY, RotationKind.EMERGENCY):
        _ = keys.authorities  # raises AuthorityNotOurs
    behind = kind == RotationKind.LEAF or await is_behind(rotation, keys)
    return [RotationStep.REISSUE.value] if behind else []


def _restarts(fleet: Fleet) -> bool:
    return fleet.spec.identity.reload == "restart"


@task(
    name="rotation-step",
    task_run_name="{step}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS,
    retry_jitter_factor=0.5,
    retry_condition_fn=is_retryable,
)
async def rotate_step(target: Target, step: str, since: datetime | None, emergency: bool) -> StepReport:
    """Do one step and prove it on every proxy; return what was done."""

    def show(work: ProxyWork) -> None:
        announce({"progress": {"step": step, **work.to_json()}})

    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        rotation = Rotation(kube, fleet, since=since, emergency=emergency, on_progress=show)
        if (await load_keys(kube, fleet)).owns_authority:
            report = await run_step(rotation, RotationStep(step))
        else:
            report = await follow_issuer(rotation)
        logger().info("%s: %s", step, report.message)
        announce({"progress": {"step": step, "message": report.message, "seconds": report.seconds}})
        return report


@task(name="publish-certificates", retries=RETRIES, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=is_retryable)
async def publish_certificates(target: Target, report: RotationReport) -> None:
    """Look at every proxy once more and write what it shows: ProxyInstances, tables, Events on the fleet."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        keys = await load_keys(kube, fleet)
        proxies = await discover_proxies(kube, fleet)
        observer = Observer.of(keys)
        seen = await observer.look(proxies)
        await record_identities(kube, fleet, proxies, seen, list_names(keys))
        views = list_certificates(keys, proxies=seen)
        await record_events(kube, fleet, report, views)
    await publish_tables(fleet.name, report, views, seen)
