"""The nine steps of a migration; each looks, does what is missing, verifies, and says what it did.

See :mod:`konverge.operate.migrating` for the algorithm and its invariant.
"""

from __future__ import annotations

import asyncio
import time

from konverge.decide.legacy import LegacyRelease, refuse_unhealthy
from konverge.decide.objects import build_controller_objects, build_fleet_objects
from konverge.errors import VerificationFailed
from konverge.kube.resources import DEPLOYMENTS, Object
from konverge.model.fleet import Fleet
from konverge.model.migration import Migration, MigrationStatus, RollbackPoint, Step, StepState
from konverge.model.proxy import ProxyOutcome
from konverge.model.revision import Revision
from konverge.operate.comparing import Parity, compare_release
from konverge.operate.connecting import open_gateways
from konverge.operate.discovering import discover_proxies
from konverge.operate.draining import wait_until_drained, wait_until_quiet
from konverge.operate.fleets import require_crds
from konverge.operate.identities import ensure_identity
from konverge.operate.migrating import (
    Site,
    StepWork,
    add_evidence,
    discover_release,
    ensure_fleet,
)
from konverge.operate.migrations import update_migration_status
from konverge.operate.onboarding import onboard_proxies
from konverge.operate.rendering import compile_revision, gather_sources
from konverge.operate.revisions import load_revision, store_revision
from konverge.operate.shifting import (
    TRAFFIC_LABEL,
    admit_fleet,
    claim_traffic,
    dismiss_legacy,
    read_selector,
    return_traffic,
    share_traffic,
)
from konverge.operate.syncing import summarise_fleet
from konverge.operate.workloads import (
    all_ready,
    apply_objects,
    is_managed_elsewhere,
    label_pod,
    list_pods,
    scale,
    wait_for_deployment,
    wait_until_gone,
)

REACH_PAUSE = 0.5
"""Seconds between two tries to reach proxies that are still starting."""
DEPLOY_SECONDS = 300.0
"""How long pods may take to appear and become ready; pulling an image is the longest part."""
PARITY_SECONDS = 10.0
"""How long a difference may stay: a controller of the legacy topology syncs every 3 s."""
GONE_SECONDS = 180.0
"""How long legacy pods may take to end; the chart gives them a grace of 30 s."""
QUIET_SECONDS = 120.0
"""How long balancers may take to notice that legacy pods left the Service."""


async def find_legacy(site: Site, migration: Migration) -> LegacyRelease:
    """Read the release of a migration."""
    spec, point = migration.spec, migration.status.rollback_point
    service = point.service if point else spec.proxy_service
    return await discover_release(site.kube, site.target.namespace, spec.release, spec.deployment, service)


async def discover(site: Site, migration: Migration) -> str:
    """Recognise the release and refuse what cannot be migrated; nothing is touched."""
    await require_crds(site.kube)
    release = await find_legacy(site, migration)
    refuse_unhealthy(release)
    evidence = {
        "legacyDeployment": release.deployment,
        "legacyReplicas": str(release.replicas),
        "legacyControllers": str(release.controllers),
        "service": release.service,
        "ingressClass": release.ingress_class,
    }
    await add_evidence(site, migration, evidence)
    return f"{release.replicas} proxies with {release.controllers} controllers behind Service {release.service}"


async def snapshot(site: Site, migration: Migration) -> str:
    """Write down the way back before anything changes; a snapshot that exists is never overwritten."""
    if migration.status.rollback_point is not None:
        return "kept from before"
    release = await find_legacy(site, migration)
    point = RollbackPoint(service=release.service, selector=dict(release.service_selector), replicas=release.replicas)

    def change(status: MigrationStatus) -> MigrationStatus:
        return status if status.rollback_point else status.model_copy(update={"rollback_point": point})

    await update_migration_status(site.kube, migration, change)
    return f"selector and {release.replicas} replicas of {release.deployment} are written down"


async def deploy(site: Site, migration: Migration) -> str:
    """Create identity and proxies of the fleet and wait until each proxy runs; they carry no traffic."""
    release = await find_legacy(site, migration)
    fleet = await ensure_fleet(site, release, migration)
    await ensure_identity(site.kube, fleet, site.clock)
    if not await is_managed_elsewhere(site.kube, fleet.deployment, fleet.namespace):
        await apply_objects(site.kube, build_fleet_objects(fleet))
    await wait_for_deployment(site.kube, fleet.deployment, fleet.namespace, DEPLOY_SECONDS, _all_created)
    return f"{fleet.spec.replicas} proxies run beside the legacy ones"


def _all_created(body: Object) -> bool:
    status, wanted = body.get("status", {}), body["spec"].get("replicas", 1)
    seen = status.get("observedGeneration", 0) >= body["metadata"]["generation"]
    return bool(seen and status.get("updatedReplicas", 0) == wanted)


async def sync(site: Site, migration: Migration) -> str:
    """Render once, onboard every proxy with it, and wait until all of them are ready."""
    fleet = await site.fleet()
    draft, rendered = compile_revision(fleet, await gather_sources(site.kube), site.clock)
    revision = await store_revision(site.kube, fleet, draft, author=f"migration {migration.name}", clock=site.clock)
    await onboard_fleet(site, fleet, revision)
    await summarise_fleet(site.kube, fleet, revision, site.clock)
    problems = f"; {len(rendered.problems)} objects with problems" if rendered.problems else ""
    return f"revision {revision.number} ({revision.routes} routes) is loaded and routed on every proxy{problems}"


async def onboard_fleet(site: Site, fleet: Fleet, revision: Revision) -> None:
    """Onboard until every replica of the Deployment is ready; VerificationFailed names the proxy that is not.

    A pod has its address before Kong listens, so a proxy that is out of reach is tried again for a while.
    """
    deadline = time.monotonic() + DEPLOY_SECONDS
    async with open_gateways(site.kube, fleet) as gateways:
        while True:
            proxies = await discover_proxies(site.kube, fleet)
            outcomes = await onboard_proxies(site.kube, fleet, gateways, revision, proxies, site.clock)
            failed = [outcome for outcome in outcomes if not outcome.ok]
            final = [outcome for outcome in failed if not outcome.retryable]
            if final or (failed and time.monotonic() > deadline):
                raise _not_taken(final or failed, len(outcomes), revision)
            if not failed and len(outcomes) >= fleet.spec.replicas:
                break
            await asyncio.sleep(REACH_PAUSE)
    await wait_for_deployment(site.kube, fleet.deployment, fleet.namespace, DEPLOY_SECONDS, all_ready)


def _not_taken(failed: list[ProxyOutcome], total: int, revision: Revision) -> VerificationFailed:
    first = failed[0]
    return VerificationFailed(
        f"{len(failed)} of {total} proxies did not take revision {revision.number}; {first.proxy}:"
        f" {first.outcome.message}",
        reason=first.outcome.reason,
        hint=first.outcome.hint,
    )


async def verify(site: Site, migration: Migration) -> str:
    """Compare what every legacy proxy runs with what the fleet runs; a difference that stays stops the migration.

    A change of the sources reaches both sides at different moments, so the fleet is brought up to date and the
    comparison is repeated for a while.
    """
    release = await find_legacy(site, migration)
    deadline = time.monotonic() + PARITY_SECONDS
    parity = await _compare(site, release)
    while parity.differences and time.monotonic() < deadline:
        await asyncio.sleep(REACH_PAUSE)
        await sync(site, migration)
        parity = await _compare(site, release)
    await add_evidence(site, migration, {"parity": parity.summary})
    if parity.differences:
        raise VerificationFailed(
            f"{len(parity.differences)} differences between legacy proxies and the fleet: {parity.differences[0]}",
            reason="ParityBroken",
            hint="reference/errors.md#parity-broken",
        )
    return parity.summary


async def _compare(site: Site, release: LegacyRelease) -> Parity:
    fleet = await site.fleet()
    revision = await load_revision(site.kube, fleet, fleet.status.current_revision)
    return await compare_release(site.kube, release, revision)


async def control(site: Site, migration: Migration) -> str:
    """Start the one controller of the fleet and wait until it is ready."""
    fleet = await site.fleet()
    if not await is_managed_elsewhere(site.kube, fleet.controller, fleet.namespace):
        await apply_objects(site.kube, build_controller_objects(fleet, migration.spec.controller_image))
    await wait_for_deployment(site.kube, fleet.controller, fleet.namespace, DEPLOY_SECONDS, all_ready)
    return "one controller watches for the whole fleet"


async def shift(site: Site, migration: Migration) -> str:
    """Move the traffic: share, admit the fleet, dismiss the legacy pods one by one, claim."""
    release = await find_legacy(site, migration)
    fleet = await site.fleet()
    soak = migration.spec.soak_seconds
    if await read_selector(site.kube, release.service, fleet.namespace) == fleet.labels:
        return "the Service selects the fleet"
    point = require_rollback_point(migration)
    await wait_for_deployment(site.kube, fleet.deployment, fleet.namespace, DEPLOY_SECONDS, all_ready)
    await share_traffic(site.kube, fleet, release.service, point.selector)
    async with open_gateways(site.kube, fleet) as gateways:
        joined = await admit_fleet(site.kube, fleet, gateways, release.service, soak)
        legacy = await list_pods(site.kube, fleet.namespace, release.selector)
        await dismiss_legacy(site.kube, fleet, gateways, release.service, legacy, soak)
    await claim_traffic(site.kube, fleet, release.service)
    return f"{joined} new proxies joined, {len(legacy)} legacy ones left {release.service}"


def require_rollback_point(migration: Migration) -> RollbackPoint:
    """Return the rollback point; VerificationFailed where the snapshot is missing."""
    if migration.status.rollback_point is None:
        raise VerificationFailed(
            f"FleetMigration {migration.namespace}/{migration.name} has no rollback point; nothing is moved",
            reason="NoRollbackPoint",
            hint="reference/errors.md#no-rollback-point",
        )
    return migration.status.rollback_point


async def drain(site: Site, migration: Migration) -> str:
    """Wait until no legacy proxy gets new connections, then until its long requests have ended."""
    release = await find_legacy(site, migration)
    pods = await list_pods(site.kube, site.target.namespace, release.selector)
    await wait_until_quiet(pods, QUIET_SECONDS)
    left = await wait_until_drained(pods, migration.spec.drain_seconds)
    if left:
        return f"quiet; long requests on {', '.join(left)} outlived {migration.spec.drain_seconds:.0f} s"
    return f"{len(pods)} legacy proxies serve nobody any more"


async def finish(site: Site, migration: Migration) -> str:
    """Scale the legacy Deployment to zero; it stays for a rollback. Refused while the traffic goes there."""
    release = await find_legacy(site, migration)
    if await read_selector(site.kube, release.service, site.target.namespace) != (await site.fleet()).labels:
        raise VerificationFailed(
            f"Service {release.namespace}/{release.service} does not select the fleet; {release.deployment} is kept",
            reason="TrafficNotMoved",
            hint="reference/errors.md#verification-failed",
        )
    await scale(site.kube, release.deployment, site.target.namespace, 0)
    await wait_until_gone(site.kube, site.target.namespace, release.selector, GONE_SECONDS)
    return f"{release.deployment} is scaled to zero and kept for a rollback"


STEPS: dict[Step, StepWork] = {
    Step.DISCOVER: discover,
    Step.SNAPSHOT: snapshot,
    Step.DEPLOY: deploy,
    Step.SYNC: sync,
    Step.VERIFY: verify,
    Step.CONTROL: control,
    Step.SHIFT: shift,
    Step.DRAIN: drain,
    Step.FINISH: finish,
}


UNDONE: tuple[Step, ...] = (Step.SHIFT, Step.DRAIN, Step.FINISH)
"""Steps whose effect a rollback takes back."""


async def reopen_steps(site: Site, migration: Migration) -> None:
    """Take the steps that a rollback undoes out of the journal's done ones, before the traffic moves.

    A migration that is started again after an interrupted rollback must move the traffic anew: it would take
    the legacy proxies away under load if it believed that this was done.
    """

    def change(status: MigrationStatus) -> MigrationStatus:
        for step in UNDONE:
            record = status.record(step)
            if record.state is StepState.DONE:
                update = {"state": StepState.PENDING, "message": f"undone by a rollback: {record.message}"}
                status = status.with_record(record.model_copy(update=update))
        return status

    await update_migration_status(site.kube, migration, change)


async def restore_legacy(site: Site, migration: Migration) -> str:
    """Bring the traffic back to the legacy proxies: start them, wait until they serve, give them the Service.

    Works from any step; where the traffic never moved nothing changes.
    """
    point = require_rollback_point(migration)
    await reopen_steps(site, migration)
    release = await find_legacy(site, migration)
    fleet_selector = await read_selector(site.kube, release.service, site.target.namespace)
    body = await site.kube.get(DEPLOYMENTS, release.deployment, site.target.namespace)
    if int(body["spec"].get("replicas", 1)) < point.replicas:
        await scale(site.kube, release.deployment, site.target.namespace, point.replicas)
    await wait_for_deployment(site.kube, release.deployment, site.target.namespace, DEPLOY_SECONDS, all_ready)
    if fleet_selector == dict(point.selector):
        return "the traffic had not moved"
    await return_traffic(site.kube, release.service, site.target.namespace, point.selector)
    # Without its label a proxy joins the next migration as every other: one first, then the rest.
    for pod in await list_pods(site.kube, site.target.namespace, {TRAFFIC_LABEL: site.target.fleet}):
        await label_pod(site.kube, pod["metadata"]["name"], site.target.namespace, TRAFFIC_LABEL, None)
    return f"Service {release.service} selects {release.deployment} again"
