"""legacy-migration: per-pod controllers become one fleet, under live traffic, with a way back at every point."""

from __future__ import annotations

import asyncio

from prefect import flow

from flows.announcing import announce_run
from konverge.errors import KonvergeError
from konverge.model.migration import MigrationPhase, Step
from konverge.model.target import Target
from konverge.operate.migrating import describe_failure
from tasks.migrating import mark_phase, migrate_step, roll_back

UNTOUCHED = (Step.DISCOVER, Step.SNAPSHOT)
"""Steps whose failure needs no rollback: nothing was changed yet."""


@flow(name="legacy-migration", flow_run_name="migrate-{migration}", validate_parameters=True)
async def legacy_migration(target: Target, migration: str) -> dict[str, str]:
    """Run the steps of a FleetMigration that are not done yet; a failure brings the traffic back.

    Started again after a crash it goes on where the journal and the cluster say.
    """
    run = announce_run()
    await mark_phase(target, migration, MigrationPhase.RUNNING.value, "", "", run)
    results: dict[str, str] = {}
    for step in Step:
        try:
            results[step.value] = await migrate_step(target, migration, step.value)
        except (Exception, asyncio.CancelledError) as error:
            await _give_back(target, migration, step, error)
            raise
    await mark_phase(target, migration, MigrationPhase.COMPLETED.value, "Completed", results[Step.FINISH.value], run)
    return results


async def _give_back(target: Target, migration: str, step: Step, error: BaseException) -> None:
    reason = read_reason(error)
    message = f"{step.value}: {describe_failure(error)}"
    if step in UNTOUCHED:
        await mark_phase(target, migration, MigrationPhase.FAILED.value, reason, message, "")
        return
    await mark_phase(target, migration, MigrationPhase.ROLLING_BACK.value, reason, message, "")
    restored = await roll_back(target, migration)
    await mark_phase(target, migration, MigrationPhase.ROLLED_BACK.value, reason, f"{message}; {restored}", "")


def read_reason(error: BaseException) -> str:
    """Return the reason that the migration shows for what ended it."""
    if isinstance(error, KonvergeError):
        return error.reason
    return "Cancelled" if isinstance(error, asyncio.CancelledError) else "Unexpected"


@flow(name="migration-rollback", flow_run_name="rollback-{migration}", validate_parameters=True)
async def migration_rollback(target: Target, migration: str) -> str:
    """Bring the traffic back to the legacy proxies on the operator's word."""
    run = announce_run()
    await mark_phase(target, migration, MigrationPhase.ROLLING_BACK.value, "Requested", "", run)
    message = await roll_back(target, migration)
    await mark_phase(target, migration, MigrationPhase.ROLLED_BACK.value, "Requested", message, run)
    return message
