"""Writes what a sync found: the ProxyInstance of each proxy, and the counts and revisions of the fleet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from konverge.decide.assessing import assess_status
from konverge.decide.waving import HARMFUL_REASONS
from konverge.kube.client import KubeClient
from konverge.model.condition import Outcome, set_condition
from konverge.model.fleet import Counts, Fleet, FleetStatus
from konverge.model.proxy import Mtls, Proxy, ProxyOutcome, ProxyStatus
from konverge.model.revision import Revision
from konverge.operate.clock import Clock, utc_now
from konverge.operate.fleets import list_instances, update_fleet_status, write_instance

Record = Callable[[Proxy, ProxyStatus], Awaitable[None]]
"""Takes the newest status of a proxy; the controller batches them, a verb that runs once writes each."""


def describe_proxy(proxy: Proxy, revision: Revision, outcome: ProxyOutcome, clock: Clock = utc_now) -> ProxyStatus:
    """Return the status of a proxy after a visit: what it should run, what it runs, what is wrong."""
    synced = outcome.loaded_hash == revision.hash
    status = ProxyStatus(
        pod=proxy.name,
        node=proxy.node,
        ip=proxy.ip,
        version=outcome.version,
        phase=outcome.phase,
        desired_revision=revision.number,
        desired_hash=revision.hash,
        loaded_revision=revision.number if synced else None,
        loaded_hash=outcome.loaded_hash,
        synced=synced,
        traffic_ready=outcome.ok,
        last_push=clock() if outcome.changed else None,
        push_milliseconds=outcome.milliseconds if outcome.changed else None,
        attempts=outcome.attempts,
        reason=outcome.outcome.reason,
        message=outcome.outcome.message,
        hint=outcome.outcome.hint,
        mtls=outcome.mtls or Mtls(),
    )
    return _with_conditions(status, outcome, clock)


async def record_outcome(
    kube: KubeClient,
    fleet: Fleet,
    proxy: Proxy,
    revision: Revision,
    outcome: ProxyOutcome,
    clock: Clock = utc_now,
) -> None:
    """Write the ProxyInstance of a proxy."""
    await write_instance(kube, fleet, proxy, describe_proxy(proxy, revision, outcome, clock))


def _with_conditions(status: ProxyStatus, outcome: ProxyOutcome, clock: Clock) -> ProxyStatus:
    now = clock()
    identity = Outcome(reason="HandshakeVerified" if outcome.mtls else outcome.outcome.reason)
    conditions = set_condition((), "IdentityValid", outcome.mtls is not None, identity, now)
    conditions = set_condition(conditions, "ConfigSynced", status.synced, outcome.outcome, now)
    conditions = set_condition(conditions, "TrafficReady", outcome.ok, outcome.outcome, now)
    return status.model_copy(update={"conditions": conditions})


async def summarise_fleet(
    kube: KubeClient,
    fleet: Fleet,
    revision: Revision,
    clock: Clock = utc_now,
    *,
    harmful: bool = False,
    setback: Outcome | None = None,
) -> FleetStatus:
    """Write the fleet's counts; the revision is the last good one where every reachable proxy runs it unharmed.

    ``harmful`` is what a sync found out otherwise, from metrics: then it does not become the last good one either.
    ``setback`` says why the revision is not what the sources say.
    """
    instances = await list_instances(kube, fleet)
    counts = count_proxies(instances, revision)
    harmful = harmful or any(s.synced and s.reason in HARMFUL_REASONS for s in instances.values())
    good = counts.synced > 0 and counts.drifted == 0 and not harmful

    def change(status: FleetStatus) -> FleetStatus:
        update: dict[str, object] = {
            "counts": counts,
            "observed_generation": fleet.generation,
            "setback": setback,
            "current_revision": revision.number,
            "current_hash": revision.hash,
            "last_sync": clock(),
        }
        if good:
            update |= {"last_good_revision": revision.number, "last_good_hash": revision.hash}
        return assess_status(fleet.spec, status.model_copy(update=update), instances, clock())

    return await update_fleet_status(kube, fleet, change)


def count_proxies(instances: dict[str, ProxyStatus], revision: Revision) -> Counts:
    """Count the proxies of a fleet by state, as seen against a revision."""
    states = list(instances.values())
    return Counts(
        total=len(states),
        synced=sum(1 for s in states if s.loaded_hash == revision.hash),
        drifted=sum(1 for s in states if s.loaded_hash not in ("", revision.hash)),
        quarantined=sum(1 for s in states if s.phase.value == "Quarantined"),
        ready=sum(1 for s in states if s.traffic_ready),
    )
