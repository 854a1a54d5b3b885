"""Tasks of drift-audit: look, heal, publish; never one per proxy."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import acreate_table_artifact
from prefect.events import emit_event

from konverge.model.drift import DriftReport, ProxyDrift
from konverge.model.target import Target
from konverge.operate.connecting import open_gateways
from konverge.operate.drift_records import record_drift
from konverge.operate.drifting import audit_fleet, describe_drift, heal_drift, open_reader
from konverge.operate.fleets import load_fleet
from tasks.running import RETRIES, RETRY_DELAYS, connect, is_retryable, logger


@task(name="audit", retries=RETRIES, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=is_retryable)
async def audit(target: Target) -> DriftReport:
    """Compare every proxy with what it should have loaded; entities are read of those that differ, redacted."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        async with open_gateways(kube, fleet) as gateways, open_reader(kube, fleet) as read:
            report = await audit_fleet(kube, fleet, gateways, read)
    for row in report.drifted:
        logger().warning("%s: %s", row.proxy, row.drift.outcome.message)
    return report


@task(name="heal", retries=1, retry_delay_seconds=2, retry_condition_fn=is_retryable)
async def heal(target: Target, report: DriftReport, everything: bool) -> DriftReport:
    """Bring the drifted proxies back, those that the policy lets be healed or all; a paused fleet is left alone."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        if fleet.spec.paused and not everything:
            logger().info("the fleet is paused: nothing is healed")
            return report
        async with open_gateways(kube, fleet) as gateways:
            return await heal_drift(kube, fleet, gateways, report, everything=everything)


@task(name="publish-drift", retries=RETRIES, retry_delay_seconds=RETRY_DELAYS, retry_condition_fn=is_retryable)
async def publish_drift(target: Target, report: DriftReport) -> None:
    """Write the table, an event for every drifted proxy, and the status in Kubernetes."""
    async with connect(target) as kube:
        fleet = await load_fleet(kube, target.fleet, target.namespace)
        await record_drift(kube, fleet, report)
    await acreate_table_artifact(
        table=[line for row in report.proxies for line in tabulate(row)],
        key=f"{report.fleet}-drift".lower(),
        description=f"What the proxies of {report.fleet} have loaded, against revision {report.revision}",
    )
    for row in report.drifted:
        emit_event(
            event="konverge.proxy.drifted",
            resource={"prefect.resource.id": f"konverge.proxy.{report.fleet}.{row.proxy}"},
            payload={"reason": row.drift.outcome.reason, "message": describe_drift(row)},
        )


def tabulate(row: ProxyDrift) -> list[dict[str, str]]:
    """Return the lines of a proxy in the table: one for itself, one for each difference that is listed."""
    head = {"proxy": row.proxy, "reason": row.drift.outcome.reason, "what": describe_drift(row)}
    lines = [head | {"entity": row.note, "field": "", "loaded": "", "desired": ""}]
    for difference in row.differences:
        lines.append(
            head
            | {
                "what": difference.change,
                "entity": difference.entity,
                "field": difference.field,
                "loaded": difference.loaded,
                "desired": difference.desired,
            }
        )
    return lines
