"""Tasks of cert-rotation: one per step."""

from __future__ import annotations

from datetime import datetime

from prefect import task
from prefect.artifacts import acreate_table_artifact

from konverge.decide.rotating import plan_rotation
from konverge.model.rotation import RotationKind, RotationStep
from konverge.model.target import Target
from konverge.operate.fleets import load_fleet
from konverge.operate.identities import ensure_identity, load_keys
from konverge.operate.rotating import ROTATION_STEPS, Rotation, list_certificates, observe
from konverge.operate.syncing import refuse_paused
from tasks.running import RETRIES, RETRY_DELAYS, connect, is_retryable, logger


@task(name="plan-rotation", retries=RETRIES, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=is_retryable)
async def plan_steps(target: Target, kind: str) -> list[str]:
    """Return the steps to take, in order; a rotation that was begun is finished."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        refuse_paused(fleet)
        await ensure_identity(kube, fleet)
        steps = plan_rotation(RotationKind(kind), observe(await load_keys(kube, fleet)))
        logger().info("steps: %s", ", ".join(steps) or "nothing is due")
        return [step.value for step in steps]


@task(
    name="rotation-step",
    task_run_name="{step}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS,
    retry_jitter_factor=0.5,
    retry_condition_fn=is_retryable,
    tags=["rotation"],
)
async def rotate_step(target: Target, step: str, since: datetime | None) -> str:
    """Do one step and prove it on every proxy; return what was done."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        message = await ROTATION_STEPS[RotationStep(step)](Rotation(kube, fleet, since=since))
        logger().info("%s: %s", step, message)
        return message


@task(name="publish-certificates")
async def publish_certificates(target: Target, timeline: dict[str, str]) -> None:
    """Write the certificates in force and the timeline of the rotation as tables."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        views = list_certificates(await load_keys(kube, fleet))
    await acreate_table_artifact(
        table=[view.to_json() for view in views],
        key=f"{fleet.name}-certificates".lower(),
        description=f"Certificates of {fleet.name}",
    )
    await acreate_table_artifact(
        table=[{"step": step, "result": message} for step, message in timeline.items()],
        key=f"{fleet.name}-rotation".lower(),
        description=f"Rotation of {fleet.name}",
    )
