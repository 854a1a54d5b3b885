"""The naive way: delete the old Deployment, apply the new one, let the Service select it, push when it answers.

It is what a plain upgrade of the chart does, and it shows that the lab is a place where requests can be lost.
"""

from __future__ import annotations

import asyncio
from typing import Any

from konverge.cli.demo.staging import NAMESPACE, RELEASE, SERVICE, Stage
from konverge.decide.objects import build_fleet_objects
from konverge.kube.resources import DEPLOYMENTS
from konverge.model.fleet import Fleet, FleetSpec
from konverge.operate.connecting import open_gateways
from konverge.operate.discovering import discover_proxies
from konverge.operate.fleets import apply_fleet
from konverge.operate.identities import ensure_identity
from konverge.operate.rendering import compile_revision, gather_sources
from konverge.operate.revisions import store_revision
from konverge.operate.syncing import summarise_fleet, sync_fleet
from konverge.operate.workloads import all_ready, apply_objects, select, wait_for_deployment

READY_SECONDS = 60.0
PUSH_SECONDS = 30.0


async def migrate_naively(stage: Stage, name: str) -> None:
    """Replace the legacy Deployment at once, as one would by hand."""
    spec = FleetSpec(proxy_service=SERVICE, replicas=3)
    fleet = await apply_fleet(stage.kube, name, NAMESPACE, spec)
    await ensure_identity(stage.kube, fleet)
    await stage.kube.delete(DEPLOYMENTS, f"{RELEASE}-kong", NAMESPACE)
    await apply_objects(stage.kube, [_as_plain_chart(body) for body in build_fleet_objects(fleet)])
    await select(stage.kube, SERVICE, NAMESPACE, fleet.labels)
    await _push_when_there(stage, fleet)
    await wait_for_deployment(stage.kube, fleet.deployment, NAMESPACE, READY_SECONDS, all_ready)


CHART_PROBE = {"initialDelaySeconds": 5, "periodSeconds": 10, "failureThreshold": 3}
"""Timing of the readiness probe in Kong's chart (``readinessProbe`` in charts/kong/values.yaml)."""


def _as_plain_chart(body: dict[str, Any]) -> dict[str, Any]:
    """Make a Deployment what a plain chart has: no readiness gate, and the chart's probe timing."""
    pod = body["spec"].get("template", {}).get("spec", {})
    pod.pop("readinessGates", None)
    for container in pod.get("containers", ()):
        container["readinessProbe"] = {**container["readinessProbe"], **CHART_PROBE}
    return body


async def _push_when_there(stage: Stage, fleet: Fleet) -> None:
    draft, _ = compile_revision(fleet, await gather_sources(stage.kube))
    revision = await store_revision(stage.kube, fleet, draft, author="naive")
    async with asyncio.timeout(PUSH_SECONDS), open_gateways(stage.kube, fleet) as gateways:
        pending = True
        while pending:
            proxies = await discover_proxies(stage.kube, fleet)
            report = await sync_fleet(stage.kube, fleet, gateways, revision, proxies)
            report.raise_for_harm()
            outcomes = report.outcomes
            pending = len(outcomes) < fleet.spec.replicas or not all(outcome.ok for outcome in outcomes)
            await asyncio.sleep(0.2 if pending else 0)
    await summarise_fleet(stage.kube, fleet, revision)
