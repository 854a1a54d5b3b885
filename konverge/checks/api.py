"""Checks of the Kubernetes API: reach, version, clock, rights."""

from __future__ import annotations

import re
from collections.abc import Iterable

from konverge.checks.registry import Answer, Severity, Stage, check, failed, failed_if, passed, skipped
from konverge.checks.rights import EXEC_RIGHTS, FLEET_RIGHTS, MIGRATION_RIGHTS, SOURCE_RIGHTS
from konverge.checks.scene import Right, Scene
from konverge.pki.inspecting import CLOCK_SKEW

CATEGORY = "Kubernetes API"
OLDEST = (1, 27)
"""Readiness gates, server-side apply and ``serving`` endpoints are older; CEL rules of CRDs are on since 1.25."""
SLOW_SECONDS = 1.0


@check(
    "api-reachable",
    CATEGORY,
    Severity.ERROR,
    "The API server answers",
    fix="Give the right --kubeconfig or --context; `kubectl get --raw /readyz` must work with it.",
)
def api_reachable(scene: Scene) -> Answer:
    """The API server answers with its version."""
    return passed(f"version {scene.server.get().version}")


@check(
    "api-version",
    CATEGORY,
    Severity.WARNING,
    "The API server is new enough",
    fix=f"Use Kubernetes {OLDEST[0]}.{OLDEST[1]} or newer; older ones are not tested.",
)
def api_version(scene: Scene) -> Answer:
    """The version is one that the tests run on, or newer."""
    version = scene.server.get().version
    match = re.match(r"v?(\d+)\.(\d+)", version)
    if match is None:
        return failed(f"{version!r} is no version of Kubernetes")
    found = (int(match[1]), int(match[2]))
    return passed(version) if found >= OLDEST else failed(f"{version} is older than {OLDEST[0]}.{OLDEST[1]}")


@check(
    "api-latency",
    CATEGORY,
    Severity.WARNING,
    "The API server answers quickly",
    fix="Look at the load of the API server and at what is in between: a sync waits for it several times.",
)
def api_latency(scene: Scene) -> Answer:
    """One small answer takes well under a second."""
    seconds = scene.server.get().seconds
    text = f"{seconds * 1000:.0f} ms for one answer"
    return passed(text) if seconds < SLOW_SECONDS else failed(text)


@check(
    "api-clock",
    CATEGORY,
    Severity.ERROR,
    "The clocks of this machine and of the API server agree",
    fix="Set the clocks with NTP: certificates are backdated by five minutes only, and leases compare times.",
)
def api_clock(scene: Scene) -> Answer:
    """The difference is below what certificates are backdated by."""
    return judge_skew(scene.server.get().skew_seconds, "the API server")


def judge_skew(skew: float | None, whose: str) -> Answer:
    """Judge the difference of two clocks against the backdating of certificates."""
    if skew is None:
        return skipped(f"{whose} told no time")
    text = f"the clock of {whose} is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
    return failed(text) if abs(skew) >= CLOCK_SKEW.total_seconds() / 2 else passed(text)


@check(
    "namespace-exists",
    CATEGORY,
    Severity.ERROR,
    "The namespace of the fleet exists",
    fix="Create it: kubectl create namespace NAME.",
)
def namespace_exists(scene: Scene) -> Answer:
    """The namespace is there and not on its way out."""
    body = scene.find("namespaces", scene.namespace)
    if body is None:
        return failed(f"there is no namespace {scene.namespace}")
    if body["metadata"].get("deletionTimestamp"):
        return failed(f"namespace {scene.namespace} is being deleted")
    return passed(scene.namespace)


def _judge_rights(scene: Scene, wanted: Iterable[Right]) -> Answer:
    rights = scene.rights.get()
    needed = list(wanted)
    return failed_if((f"no right to {right}" for right in needed if not rights.get(right)), f"{len(needed)} rights")


@check(
    "rbac-sources",
    CATEGORY,
    Severity.ERROR,
    "The sources of a configuration may be read in every namespace",
    fix="Install the chart with rbac.create=true, or bind the ClusterRole that docs/reference/rbac.md shows.",
)
def rbac_sources(scene: Scene) -> Answer:
    """list and watch on every kind that is served and rendered from."""
    served = {name.split("/", 1)[0] for name in scene.kinds.get()}
    return _judge_rights(scene, (r for r in SOURCE_RIGHTS if f"{r.resource}.{r.group}".rstrip(".") in served))


@check(
    "rbac-fleet",
    CATEGORY,
    Severity.ERROR,
    "The objects of the fleet may be written in its namespace",
    fix="Install the chart with rbac.create=true, or bind the Role that docs/reference/rbac.md shows.",
)
def rbac_fleet(scene: Scene) -> Answer:
    """The rights of the controller."""
    return _judge_rights(scene, FLEET_RIGHTS)


@check(
    "rbac-exec",
    CATEGORY,
    Severity.ERROR,
    "Commands may be run in the pods of the fleet",
    fix="Grant get and create on pods/exec: a rotation runs `kong reload`, and a WebSocket asks for both verbs.",
)
def rbac_exec(scene: Scene) -> Answer:
    """get and create on pods/exec, unless proxies are restarted instead."""
    fleet = scene.fleet.get() if scene.fleet else None
    if fleet is not None and fleet.spec.identity.reload == "restart":
        return skipped("identity.reload is restart: nothing is executed in a pod")
    return _judge_rights(scene, EXEC_RIGHTS)


@check(
    "rbac-migration",
    CATEGORY,
    Severity.ERROR,
    "Workloads and Services may be changed, and pods be reached through the API server",
    fix="Run the migration with the chart's account of the worker, or bind the Role of docs/reference/rbac.md.",
    stage=Stage.BEFORE,
)
def rbac_migration(scene: Scene) -> Answer:
    """The rights of a migration."""
    return _judge_rights(scene, MIGRATION_RIGHTS)
