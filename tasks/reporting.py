"""Artifacts and events: every proxy's outcome is visible without a task run for each."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from prefect.artifacts import acreate_progress_artifact, acreate_table_artifact, aupdate_progress_artifact
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


class Progress:
    """The one progress artifact of a run: how many of the proxies have been visited."""

    def __init__(self, key: str) -> None:
        self._key = key.lower()
        self._artifact: UUID | None = None
        self._done = self._total = 0

    async def expect(self, proxies: int, description: str) -> None:
        """Take note that so many more proxies are to come; nothing is shown where that is none."""
        self._total = self._done + proxies
        if self._artifact is None and self._total:
            self._artifact = await acreate_progress_artifact(progress=0.0, key=self._key, description=description)

    async def advance(self, proxies: int) -> None:
        """Take note that so many proxies have been visited."""
        self._done += proxies
        if self._artifact is not None:
            await aupdate_progress_artifact(self._artifact, progress=100.0 * self._done / max(self._total, 1))


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
