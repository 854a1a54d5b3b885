"""What a rotation leaves behind: tables in the UI, events for automations, Kubernetes Events for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect.artifacts import acreate_table_artifact
from prefect.events import emit_event

from konverge.decide.expiring import list_warnings
from konverge.kube.client import KubeClient
from konverge.model.condition import ObjectRef
from konverge.model.fleet import Fleet
from konverge.model.rotation import CertificateView, ProxyIdentity, RotationReport, RotationState, StepReport
from konverge.model.target import Target
from konverge.operate.clock import utc_now
from konverge.operate.events import Recorder


def emit_rotation(target: Target, name: str, **details: Any) -> None:
    """Emit ``konverge.rotation.NAME`` for a fleet: started, step, done, waiting, postponed or failed."""
    emit_event(
        event=f"konverge.rotation.{name}",
        resource={
            "prefect.resource.id": f"konverge.fleet.{target.namespace}.{target.fleet}",
            "prefect.resource.name": f"{target.namespace}/{target.fleet}",
        },
        payload={"fleet": target.fleet, "namespace": target.namespace, **details},
    )


async def publish_tables(
    fleet: str, report: RotationReport, views: Sequence[CertificateView], seen: Sequence[ProxyIdentity]
) -> None:
    """Write the certificates in force, what each proxy shows, and the timeline: step, proxy, seconds."""
    tables: tuple[tuple[str, list[dict[str, Any]], str], ...] = (
        ("certificates", [view.to_json() for view in views], f"Certificates of {fleet}"),
        (
            "identities",
            [proxy.to_json() for proxy in seen],
            f"What the proxies of {fleet} show, and whom they let in",
        ),
        (
            "rotation",
            [row for step in report.steps for row in tabulate(step)],
            f"Rotation of {fleet}: {report.state}",
        ),
    )
    for name, table, description in tables:
        await acreate_table_artifact(table=table, key=f"{fleet}-{name}".lower(), description=description)


def tabulate(step: StepReport) -> list[dict[str, Any]]:
    """Return the rows of a step: one for itself, one for each proxy."""
    rows: list[dict[str, Any]] = [
        {"step": step.step.value, "proxy": "", "seconds": step.seconds, "reloads": "", "result": step.message}
    ]
    for work in step.proxies:
        result = f"owes: {work.seen}" if work.owes else "proven"
        rows.append(
            {
                "step": step.step.value,
                "proxy": work.proxy,
                "seconds": work.seconds,
                "reloads": work.reloads,
                "result": result,
            }
        )
    return rows


async def record_events(
    kube: KubeClient, fleet: Fleet, report: RotationReport, views: Sequence[CertificateView]
) -> None:
    """Write Events on the ProxyFleet: that it was rotated or waits, and which certificates are about to expire."""
    recorder = Recorder(kube, component="konverge-rotation")
    about = ObjectRef(kind="ProxyFleet", name=fleet.name, namespace=fleet.namespace, uid=fleet.uid)
    if report.state is RotationState.DONE:
        steps = ", ".join(step.step.value for step in report.steps)
        recorder.record(about, "CertificatesRotated", f"Done: {steps}", "Normal")
    elif report.state is RotationState.WAITING:
        recorder.record(about, "RotationWaiting", report.message, "Warning", hint="howto/rotate-certificates.md")
    for concern in list_warnings(views, utc_now()):
        recorder.record(about, "CertificateExpiring", concern.message, concern.kind)
    await recorder.flush()
