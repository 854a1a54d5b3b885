"""Writes what an audit found where people look: the ProxyInstances, the fleet's conditions, events on the pods."""

from __future__ import annotations

from konverge.decide.assessing import assess_status
from konverge.kube.client import KubeClient
from konverge.model.condition import ObjectRef, Outcome, set_condition
from konverge.model.drift import DRIFT_REASONS, DriftKind, DriftReport, ProxyDrift
from konverge.model.fleet import Fleet, FleetStatus
from konverge.model.proxy import Proxy, ProxyStatus
from konverge.operate.clock import Clock, utc_now
from konverge.operate.discovering import discover_proxies
from konverge.operate.drifting import describe_drift
from konverge.operate.events import Recorder
from konverge.operate.fleets import list_instances, update_fleet_status, write_instance


async def record_drift(kube: KubeClient, fleet: Fleet, report: DriftReport, clock: Clock = utc_now) -> FleetStatus:
    """Write the report into the status of proxies and fleet and record an event for each drifted pod.

    A proxy that was brought back has been written by the push already; nothing is written where all is as it was.
    """
    proxies = {proxy.name: proxy for proxy in await discover_proxies(kube, fleet)}
    before = await list_instances(kube, fleet)
    recorder = Recorder(kube, component="konverge-drift-audit", clock=clock)
    for row in report.proxies:
        proxy = proxies.get(row.proxy)
        if proxy is None:
            continue
        if row.drift.kind.drifted:
            ref = ObjectRef(kind="Pod", name=proxy.name, namespace=proxy.namespace, uid=proxy.uid)
            recorder.record(ref, "Drifted", describe_drift(row), hint=row.drift.outcome.hint)
        held = before.get(row.proxy)
        if row.healed is None and held is not None:
            await _write(kube, fleet, report, (proxy, row), held, clock)
    await recorder.flush()
    instances = await list_instances(kube, fleet)
    return await update_fleet_status(
        kube, fleet, lambda status: assess_status(fleet.spec, status, instances, clock())
    )


async def _write(
    kube: KubeClient,
    fleet: Fleet,
    report: DriftReport,
    seen: tuple[Proxy, ProxyDrift],
    held: ProxyStatus,
    clock: Clock,
) -> None:
    proxy, row = seen
    synced = row.drift.kind is DriftKind.IN_SYNC
    if not (row.drift.kind.drifted or (synced and held.reason in DRIFT_REASONS)):
        return
    outcome = row.drift.outcome
    if synced:
        outcome = Outcome(reason="Configured", message=outcome.message, hint=outcome.hint)
    fresh = held.model_copy(
        update={
            "desired_revision": report.revision,
            "desired_hash": report.hash,
            "loaded_hash": row.loaded_hash,
            "loaded_revision": report.revision if synced else row.drift.revision or None,
            "synced": synced,
            "reason": outcome.reason,
            "message": outcome.message,
            "hint": outcome.hint,
            "conditions": set_condition(held.conditions, "ConfigSynced", synced, outcome, clock()),
        }
    )
    await write_instance(kube, fleet, proxy, fresh)
