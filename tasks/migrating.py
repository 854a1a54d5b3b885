"""Tasks of legacy-migration: one per step, so that the UI shows where a migration stands."""

from __future__ import annotations

from prefect import task

from konverge.model.migration import Migration, MigrationPhase, Step
from konverge.model.target import Target
from konverge.operate.clock import utc_now
from konverge.operate.migrating import Site, run_step, set_phase
from konverge.operate.migrations import load_migration
from konverge.operate.steps import STEPS, restore_legacy
from tasks.reporting import publish_journal
from tasks.running import RETRIES, RETRY_DELAYS, connect, is_retryable, logger


@task(
    name="migration-step",
    task_run_name="{step}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS,
    retry_jitter_factor=0.5,
    retry_condition_fn=is_retryable,
)
async def migrate_step(target: Target, migration: str, step: str) -> str:
    """Do one step and return what it did; a step that the journal shows as done is skipped."""
    async with connect(target) as kube:
        site = Site(kube, target, utc_now)
        done = await run_step(site, migration, Step(step), STEPS[Step(step)])
        message = done.status.record(Step(step)).message
        logger().info("%s: %s", step, message)
        return message


@task(name="migration-phase", task_run_name="phase-{phase}")
async def mark_phase(target: Target, migration: str, phase: str, reason: str, message: str, run: str) -> None:
    """Write the phase of the migration and publish its journal."""
    async with connect(target) as kube:
        site = Site(kube, target, utc_now)
        current = await load_migration(kube, migration, target.namespace)
        await publish_journal(await set_phase(site, current, MigrationPhase(phase), reason, message, run))


@task(
    name="migration-rollback",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS,
    retry_jitter_factor=0.5,
    retry_condition_fn=is_retryable,
)
async def roll_back(target: Target, migration: str) -> str:
    """Bring the traffic back to the legacy proxies."""
    async with connect(target) as kube:
        current: Migration = await load_migration(kube, migration, target.namespace)
        message = await restore_legacy(Site(kube, target, utc_now), current)
        logger().info("rollback: %s", message)
        return message
