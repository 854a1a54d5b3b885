"""cert-rotation: trust both, reissue, reload, prove, retire; scheduled, and resumed where it was left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.announcing import announce_run
from konverge.errors import CheckRefused, UsageError
from konverge.model.rotation import RotationKind, RotationReport, RotationState, StepReport
from konverge.model.target import Target
from konverge.operate.migrating import describe_failure
from tasks.rotating import find_start, hold_rotation, plan_steps, publish_certificates, rotate_step
from tasks.timelines import emit_rotation


@flow(name="cert-rotation", flow_run_name="rotate-{target.fleet}-{kind}", validate_parameters=True)
async def cert_rotation(
    target: Target, kind: str = RotationKind.AUTO.value, revoke: str = "", jitter_seconds: float = 0.0
) -> State[dict[str, Any]]:
    """Rotate what is due (``auto``), the leaves (``leaf``), the authority (``authority``), or what is compromised.

    ``emergency`` takes a serial, a fingerprint or "authority" as ``revoke``. Each step begins only after the one
    before is proven on every proxy that can be reached. A run that the schedule started waits up to
    ``jitter_seconds``, and outside the fleet's maintenance windows it ends as Postponed.
    """
    announce_run()
    RotationKind(kind)
    if is_scheduled() and kind != RotationKind.EMERGENCY:
        start = await find_start(target, jitter_seconds)
        if start.postponed_until is not None:
            return _postpone(target, start.postponed_until)
        await asyncio.sleep(start.delay)
    try:
        async with hold_rotation(target) as reservation:
            report = await _rotate(target, kind, revoke, reservation.require)
    except (Exception, asyncio.CancelledError) as error:
        # A refusal needs a person; a failure is tried again by an automation.
        name = "refused" if isinstance(error, (CheckRefused, UsageError)) else "failed"
        emit_rotation(target, name, kind=kind, message=describe_failure(error))
        raise
    emit_rotation(target, report.state.value, kind=kind, message=report.message)
    return _end(report)


def is_scheduled() -> bool:
    """Tell whether this run was created by a schedule of its deployment."""
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.auto_scheduled)


async def _rotate(target: Target, kind: str, revoke: str, require: Callable[[], None]) -> RotationReport:
    since = flow_run.get_scheduled_start_time() if kind != RotationKind.AUTO else None
    steps = await plan_steps(target, kind, revoke, since)
    emit_rotation(target, "started", kind=kind, steps=steps)
    done: list[StepReport] = []
    try:
        for step in steps:
            require()
            done.append(await rotate_step(target, step, since, kind == RotationKind.EMERGENCY))
            emit_rotation(target, "step", step=step, message=done[-1].message, seconds=done[-1].seconds)
            if done[-1].waiting:
                break
    finally:
        report = conclude(done)
        await publish_certificates(target, report)
    return report


def conclude(steps: list[StepReport]) -> RotationReport:
    """Return the report of a run: what it did, and whether something is left to do."""
    if not steps:
        return RotationReport(state=RotationState.NOTHING_DUE, message="nothing is due")
    last = steps[-1]
    report = RotationReport(state=RotationState.DONE, message=last.message, steps=tuple(steps))
    # Who owed an earlier step and gave the proof of the last one has caught up.
    waits = last.waiting or bool(last.owing)
    return report.model_copy(update={"state": RotationState.WAITING}) if waits else report


def _postpone(target: Target, until: datetime) -> State[dict[str, Any]]:
    message = f"postponed until {until:%FT%TZ}: outside the maintenance windows of the fleet"
    emit_rotation(target, "postponed", until=until.isoformat(), message=message)
    report = RotationReport(state=RotationState.POSTPONED, message=message, postponed_until=until)
    return Completed(name="Postponed", message=message, data=report.to_json())


def _end(report: RotationReport) -> State[dict[str, Any]]:
    name = "Waiting" if report.state is RotationState.WAITING else "Completed"
    return Completed(name=name, message=report.message[:1024], data=report.to_json())
