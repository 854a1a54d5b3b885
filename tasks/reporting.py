"""Artifacts and events: every proxy's outcome is visible without a task run for each."""

from __future__ import annotations

from collections.abc import Sequence

from prefect.artifacts import acreate_table_artifact
from prefect.events import emit_event

from konverge.model.migration import Migration
from konverge.model.proxy import ProxyOutcome


async def publish_outcomes(fleet: str, wave: str, outcomes: Sequence[ProxyOutcome]) -> None:
    """Write a table of a wave, and an event for every proxy that changed or failed."""
    rows = [
        {
            "proxy": o.proxy,
            "result": "ok" if o.ok else "failed",
            "reason": o.outcome.reason,
            "message": o.outcome.message,
            "hash": o.loaded_hash,
            "attempts": o.attempts,
            "ms": o.milliseconds,
        }
        for o in outcomes
    ]
    await acreate_table_artifact(table=rows, key=f"{fleet}-{wave}".lower(), description=f"Proxies of {wave}")
    for outcome in outcomes:
        if outcome.changed or not outcome.ok:
            _emit(fleet, outcome)


def _emit(fleet: str, outcome: ProxyOutcome) -> None:
    name = "konverge.proxy.configured" if outcome.ok else "konverge.proxy.failed"
    emit_event(
        event=name,
        resource={"prefect.resource.id": f"konverge.proxy.{fleet}.{outcome.proxy}"},
        payload={"reason": outcome.outcome.reason, "message": outcome.outcome.message},
    )


async def publish_journal(migration: Migration) -> None:
    """Write the journal of a migration as a table."""
    rows = [
        {
            "step": record.step.value,
            "state": record.state.value,
            "seconds": round(record.seconds, 1) if record.seconds is not None else "",
            "message": record.message,
        }
        for record in migration.status.steps
    ]
    await acreate_table_artifact(
        table=rows, key=f"{migration.name}-journal".lower(), description=f"Migration of {migration.spec.release}"
    )
