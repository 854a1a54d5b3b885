"""Brings every proxy of a fleet to one revision: in waves, verified, the sick ones isolated."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from konverge.decide.waving import HARMFUL_REASONS, Wave, may_continue, plan_waves
from konverge.errors import CheckRefused, VerificationFailed
from konverge.kube.client import KubeClient
from konverge.model.condition import Outcome, set_condition
from konverge.model.fleet import Counts, Fleet, FleetStatus
from konverge.model.proxy import Mtls, Proxy, ProxyOutcome, ProxyStatus
from konverge.model.revision import Revision
from konverge.operate.clock import Clock, utc_now
from konverge.operate.configuring import configure_proxy
from konverge.operate.fleets import list_instances, update_fleet_status, write_instance
from konverge.operate.gathering import gather_all
from konverge.operate.ports import Gateways


def refuse_paused(fleet: Fleet) -> None:
    """Raise CheckRefused for a paused fleet."""
    if fleet.spec.paused:
        raise CheckRefused(
            f"ProxyFleet {fleet.namespace}/{fleet.name} is paused (spec.paused); nothing is pushed",
            reason="Paused",
            hint="reference/errors.md#paused",
        )


async def push_wave(
    kube: KubeClient,
    fleet: Fleet,
    gateways: Gateways,
    revision: Revision,
    wave: Wave,
    clock: Clock = utc_now,
) -> list[ProxyOutcome]:
    """Bring the proxies of a wave to a revision, ``concurrency`` at a time, and write their status."""
    slots = asyncio.Semaphore(fleet.spec.rollout.concurrency)

    async def visit(proxy: Proxy) -> ProxyOutcome:
        async with slots:
            outcome = await configure_proxy(gateways.reach(proxy), revision)
            await record_outcome(kube, fleet, proxy, revision, outcome, clock)
            return outcome

    return await gather_all(visit(proxy) for proxy in wave.proxies)


async def sync_proxies(
    kube: KubeClient,
    fleet: Fleet,
    gateways: Gateways,
    revision: Revision,
    proxies: Sequence[Proxy],
    clock: Clock = utc_now,
) -> list[ProxyOutcome]:
    """Push a revision in waves and stop where it proves harmful.

    Raises VerificationFailed naming the proxy and the cause; the waves after it keep what they had.
    """
    refuse_paused(fleet)
    outcomes: list[ProxyOutcome] = []
    for wave in plan_waves(proxies, fleet.spec.rollout):
        fresh = await push_wave(kube, fleet, gateways, revision, wave, clock)
        outcomes += fresh
        if not may_continue(fresh, fleet.spec.rollout):
            raise stop_at(wave, fresh, revision)
        await asyncio.sleep(fleet.spec.rollout.soak_seconds)
    return outcomes


def stop_at(wave: Wave, outcomes: Sequence[ProxyOutcome], revision: Revision) -> VerificationFailed:
    """Return the failure that stops a sync: which wave, which proxy, why."""
    first = next(o for o in outcomes if not o.ok and o.outcome.reason in HARMFUL_REASONS)
    return VerificationFailed(
        f"Revision {revision.number} stopped at {wave.name}: proxy {first.proxy}: {first.outcome.message}",
        reason=first.outcome.reason,
        hint=first.outcome.hint,
    )


async def record_outcome(
    kube: KubeClient,
    fleet: Fleet,
    proxy: Proxy,
    revision: Revision,
    outcome: ProxyOutcome,
    clock: Clock = utc_now,
) -> None:
    """Write the ProxyInstance of a proxy: what it should run, what it runs, what is wrong."""
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
        mtls=outcome.mtls or Mtls(),
    )
    await write_instance(kube, fleet, proxy, _with_conditions(status, outcome, clock))


def _with_conditions(status: ProxyStatus, outcome: ProxyOutcome, clock: Clock) -> ProxyStatus:
    now = clock()
    identity = Outcome(reason="HandshakeVerified" if outcome.mtls else outcome.outcome.reason)
    conditions = set_condition((), "IdentityValid", outcome.mtls is not None, identity, now)
    conditions = set_condition(conditions, "ConfigSynced", status.synced, outcome.outcome, now)
    conditions = set_condition(conditions, "TrafficReady", outcome.ok, outcome.outcome, now)
    return status.model_copy(update={"conditions": conditions})


async def summarise_fleet(kube: KubeClient, fleet: Fleet, revision: Revision, clock: Clock = utc_now) -> FleetStatus:
    """Write the fleet's counts; the revision is the last good one where every reachable proxy runs it unharmed."""
    instances = await list_instances(kube, fleet)
    counts = count_proxies(instances, revision)
    harmful = any(s.synced and s.reason in HARMFUL_REASONS for s in instances.values())
    good = counts.synced > 0 and counts.drifted == 0 and not harmful

    def change(status: FleetStatus) -> FleetStatus:
        update = {
            "counts": counts,
            "current_revision": revision.number,
            "current_hash": revision.hash,
            "last_sync": clock(),
        }
        if good:
            update |= {"last_good_revision": revision.number, "last_good_hash": revision.hash}
        return status.model_copy(update=update)

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
