"""cert-rotation: trust both, reissue, reload, prove, retire; scheduled, and resumed where it was left."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.announcing import announce_run
from konverge.model.rotation import RotationKind
from konverge.model.target import Target
from tasks.rotating import plan_steps, publish_certificates, rotate_step


@flow(name="cert-rotation", flow_run_name="rotate-{target.fleet}-{kind}", validate_parameters=True)
async def cert_rotation(target: Target, kind: str = RotationKind.AUTO.value) -> dict[str, str]:
    """Rotate what is due (``auto``), the leaves (``leaf``) or the authority (``authority``); return the timeline.

    Each step begins only after the one before is proven on every proxy.
    """
    announce_run()
    since = flow_run.get_scheduled_start_time() if RotationKind(kind) is not RotationKind.AUTO else None
    timeline: dict[str, str] = {}
    try:
        for step in await plan_steps(target, kind):
            timeline[step] = await rotate_step(target, step, since)
    finally:
        if timeline:
            await publish_certificates(target, timeline)
    return timeline
