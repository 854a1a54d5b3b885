"""Moves a release of per-pod controllers to one fleet, step by step, under live traffic.

The algorithm, level-triggered: every step looks at the cluster first, does what is missing and verifies it, so
a migration that is killed anywhere goes on from what it sees.

1. discover  The release is recognised and whole; otherwise it is refused and nothing was touched.
2. snapshot  What leads back is written down first: the Service's selector and the replicas.
3. deploy    The fleet's identity and proxies are created beside the legacy pods, outside every Service.
4. sync      Each proxy gets its configuration, proves it and opens its readiness gate.
5. verify    What the legacy proxies run is compared with what the fleet runs.
6. control   The one controller takes over: from here on changes reach the fleet through it.
7. shift     The Service selects legacy and new pods, then legacy pods leave one by one, then only the fleet is left.
8. drain     Nothing is taken away while legacy proxies still get new connections.
9. finish    The legacy Deployment is scaled to zero and kept, so that a rollback needs no installation.

Invariant: at every moment the Service selects at least as many ready proxies as the release had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from konverge.decide.legacy import LegacyRelease, find_release
from konverge.errors import CheckRefused, KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.resources import DEPLOYMENTS, SERVICES
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.migration import (
    Migration,
    MigrationPhase,
    MigrationStatus,
    Step,
    StepRecord,
    StepState,
)
from konverge.model.target import Target
from konverge.operate.clock import Clock, utc_now
from konverge.operate.fleets import apply_fleet, find_fleet, load_fleet
from konverge.operate.migrations import load_migration, update_migration_status


@dataclass(frozen=True, slots=True)
class Site:
    """What a step works on."""

    kube: KubeClient
    target: Target
    clock: Clock = utc_now

    async def fleet(self) -> Fleet:
        """Read the fleet as it is now."""
        return await load_fleet(self.kube, self.target.fleet, self.target.namespace)


StepWork = Callable[[Site, Migration], Awaitable[str]]
"""Does one step and returns one sentence about what was done."""


async def discover_release(
    kube: KubeClient, namespace: str, release: str, deployment: str = "", service: str = ""
) -> LegacyRelease:
    """Read the release from the cluster; NotFound or CheckRefused say what is not as it should be."""
    deployments = await kube.list_all(DEPLOYMENTS, namespace)
    if deployment:
        deployments = [d for d in deployments if d["metadata"]["name"] == deployment]
    return find_release(release, deployments, await kube.list_all(SERVICES, namespace), service)


async def ensure_fleet(site: Site, release: LegacyRelease, migration: Migration) -> Fleet:
    """Create the ProxyFleet that takes over, with the class, image, router and features of the release."""
    existing = await find_fleet(site.kube, site.target.fleet, site.target.namespace)
    if existing is not None:
        fleet = await site.fleet()
        _refuse_unfit(fleet, release)
        return fleet
    spec = FleetSpec(
        ingress_class=release.ingress_class,
        features=dict(release.features),
        replicas=release.replicas,
        image=migration.spec.image,
        router_flavor=release.router_flavor,
        proxy_service=release.service,
    )
    return await apply_fleet(site.kube, site.target.fleet, site.target.namespace, spec)


def _refuse_unfit(fleet: Fleet, release: LegacyRelease) -> None:
    """Raise CheckRefused where a fleet that exists cannot take the place of the release."""
    if fleet.spec.proxy_service != release.service:
        problem = f"spec.proxyService is {fleet.spec.proxy_service!r}, the traffic is on {release.service!r}"
    elif fleet.spec.replicas < release.replicas:
        problem = f"spec.replicas is {fleet.spec.replicas}, the release has {release.replicas} proxies"
    else:
        return
    raise CheckRefused(
        f"ProxyFleet {fleet.namespace}/{fleet.name} exists and does not fit: {problem}",
        reason="FleetDoesNotFit",
        hint="reference/errors.md#fleet-does-not-fit",
    )


async def run_step(site: Site, name: str, step: Step, work: StepWork) -> Migration:
    """Run one step with its journal; a step that is done is not done again."""
    migration = await load_migration(site.kube, name, site.target.namespace)
    if migration.status.record(step).state is StepState.DONE:
        return migration
    started = StepRecord(step=step, state=StepState.RUNNING, started=site.clock())
    migration = await _journal(site, migration, started)
    try:
        message = await work(site, migration)
    except Exception as error:
        failed = started.model_copy(
            update={"state": StepState.FAILED, "finished": site.clock(), "message": describe_failure(error)}
        )
        await _journal(site, migration, failed)
        raise
    done = started.model_copy(update={"state": StepState.DONE, "finished": site.clock(), "message": message})
    return await _journal(site, migration, done)


def describe_failure(error: BaseException) -> str:
    """Return what a journal may say: our own sentences; of anything else the type only, for secrets' sake."""
    if isinstance(error, KonvergeError):
        return error.message
    return "cancelled" if isinstance(error, asyncio.CancelledError) else f"unexpected {type(error).__name__}"


async def _journal(site: Site, migration: Migration, record: StepRecord) -> Migration:
    def change(status: MigrationStatus) -> MigrationStatus:
        return status.with_record(record)

    return await update_migration_status(site.kube, migration, change)


async def set_phase(
    site: Site, migration: Migration, phase: MigrationPhase, reason: str = "", message: str = "", run: str = ""
) -> Migration:
    """Write the phase of a migration."""

    def change(status: MigrationStatus) -> MigrationStatus:
        update = {"phase": phase, "reason": reason, "message": message}
        if run:
            update["run"] = run
        return status.model_copy(update=update)

    return await update_migration_status(site.kube, migration, change)


async def add_evidence(site: Site, migration: Migration, evidence: dict[str, str]) -> Migration:
    """Add what was found to the migration's status."""

    def change(status: MigrationStatus) -> MigrationStatus:
        return status.model_copy(update={"evidence": {**status.evidence, **evidence}})

    return await update_migration_status(site.kube, migration, change)
