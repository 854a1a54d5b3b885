"""Checks of the Prefect server and its worker."""

from __future__ import annotations

from konverge.checks.api import judge_skew
from konverge.checks.registry import Answer, NotApplicable, Severity, check, failed, failed_if, passed
from konverge.checks.scene import Orchestrator, Scene

CATEGORY = "Prefect"
FLOWS = ("config-sync", "proxy-onboarding", "cert-rotation", "legacy-migration", "migration-rollback", "drift-audit")
ZOMBIES = "konverge: runs whose process is gone"


def _require(scene: Scene) -> Orchestrator:
    """Return the server; NotApplicable where there is none."""
    if scene.orchestrator is None:
        raise NotApplicable("no Prefect server is configured and none runs here; commands start a local one")
    return scene.orchestrator.get()


@check(
    "prefect-reachable",
    CATEGORY,
    Severity.ERROR,
    "The configured Prefect server answers",
    fix="Start that server, or unset PREFECT_API_URL to use the local one (konverge server start).",
)
def prefect_reachable(scene: Scene) -> Answer:
    """Its API answers."""
    return passed(_require(scene).url)


@check(
    "prefect-version",
    CATEGORY,
    Severity.WARNING,
    "Server and client are of the same minor version",
    fix="Upgrade the server first, then workers and controller: an older server refuses what a newer client sends.",
)
def prefect_version(scene: Scene) -> Answer:
    """Major and minor version agree."""
    found = _require(scene)
    ours = scene.client_version
    text = f"server {found.version}, here {ours}"
    return passed(text) if found.version.split(".")[:2] == ours.split(".")[:2] else failed(text)


@check(
    "prefect-clock",
    CATEGORY,
    Severity.WARNING,
    "The clocks of this machine and of the Prefect server agree",
    fix="Set the clocks with NTP: schedules and heartbeats compare times.",
)
def prefect_clock(scene: Scene) -> Answer:
    """The difference of the clocks is small."""
    return judge_skew(_require(scene).skew_seconds, "the Prefect server")


@check(
    "prefect-pool",
    CATEGORY,
    Severity.WARNING,
    "The work pool of the flows exists",
    fix="konverge server bootstrap",
)
def prefect_pool(scene: Scene) -> Answer:
    """The work pool konverge exists."""
    found = _require(scene)
    return passed("konverge") if found.pool else failed("there is no work pool konverge")


@check(
    "prefect-worker",
    CATEGORY,
    Severity.WARNING,
    "A worker takes runs from the work pool",
    fix="Start one: prefect worker start --pool konverge (the chart: prefect.worker.enabled). Schedules wait for it.",
)
def prefect_worker(scene: Scene) -> Answer:
    """At least one worker is online."""
    found = _require(scene)
    count = found.workers_online
    return passed(f"{count} online") if count else failed("no worker is online: scheduled runs stay late")


@check(
    "prefect-deployments",
    CATEGORY,
    Severity.WARNING,
    "Every flow has a deployment",
    fix="konverge server bootstrap",
)
def prefect_deployments(scene: Scene) -> Answer:
    """There is a deployment for each flow."""
    found = _require(scene)
    deployed = {name.split("/", 1)[0] for name in found.deployments}
    return failed_if((f"{flow} is not deployed" for flow in FLOWS if flow not in deployed), f"{len(FLOWS)} flows")


@check(
    "prefect-schedule",
    CATEGORY,
    Severity.WARNING,
    "Certificate rotation is scheduled",
    fix="konverge server bootstrap, or switch the schedule on in the UI: without it certificates expire.",
)
def prefect_schedule(scene: Scene) -> Answer:
    """A deployment of cert-rotation has an active schedule."""
    found = _require(scene)
    active = sorted(name for name in found.scheduled if name.startswith("cert-rotation/"))
    return passed(", ".join(active)) if active else failed("no deployment of cert-rotation has an active schedule")


@check(
    "prefect-zombies",
    CATEGORY,
    Severity.INFO,
    "Runs whose process is gone are ended",
    fix="konverge server bootstrap: without the automation a killed run is shown as running for ever.",
)
def prefect_zombies(scene: Scene) -> Answer:
    """The automation exists."""
    found = _require(scene)
    return passed(ZOMBIES) if ZOMBIES in found.automations else failed(f"there is no automation {ZOMBIES!r}")
