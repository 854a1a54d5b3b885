"""Checks of what is rendered and of what the proxies have loaded."""

from __future__ import annotations

from konverge.checks.registry import Answer, Severity, Stage, check, failed, failed_if, passed
from konverge.checks.scene import Scene
from konverge.checks.services import require_fleet

CATEGORY = "Configuration"
SHOWN = 3


@check(
    "sources-render",
    CATEGORY,
    Severity.WARNING,
    "Every source object is used as it is",
    fix="konverge render --from-cluster --problems FILE lists all of them with a hint each.",
)
def sources_render(scene: Scene) -> Answer:
    """The translation excludes or degrades no object."""
    problems = scene.rendering.get().problems
    if not problems:
        return passed(f"{scene.rendering.get().routes} routes")
    more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return failed("; ".join(problems[:SHOWN]) + more)


@check(
    "marker-visible",
    CATEGORY,
    Severity.INFO,
    "The data path can be probed for the revision",
    fix="A global plugin that answers by itself hides the marker: proxies are then probed for any answer only.",
)
def marker_visible(scene: Scene) -> Answer:
    """No global plugin answers in place of the marker route."""
    return failed_if(scene.rendering.get().shadows, "the marker route is reachable")


@check(
    "proxies-current",
    CATEGORY,
    Severity.WARNING,
    "Every proxy has loaded the current revision and serves",
    fix="konverge status FLEET says for each proxy what is wrong.",
    stage=Stage.AFTER,
)
def proxies_current(scene: Scene) -> Answer:
    """Every ProxyInstance is synced and in traffic."""
    require_fleet(scene)
    states = scene.instances.get()
    behind = [
        f"{name}: {status.reason or status.phase.value}"
        for name, status in states.items()
        if not (status.synced and status.traffic_ready)
    ]
    return failed_if(behind, f"{len(states)} proxies")


@check(
    "revision-good",
    CATEGORY,
    Severity.WARNING,
    "The current revision is a good one, and there is one to go back to",
    fix="konverge history --fleet NAME; konverge sync --fleet NAME.",
    stage=Stage.AFTER,
)
def revision_good(scene: Scene) -> Answer:
    """The current revision is the last good one, and it is stored."""
    fleet = require_fleet(scene)
    status, stored = fleet.status, {spec.number for spec in scene.revisions.get()}
    if not status.last_good_revision:
        return failed("no revision was ever verified on every proxy")
    if status.last_good_revision not in stored:
        return failed(f"revision {status.last_good_revision} is the last good one, but it is not stored")
    if status.last_good_revision != status.current_revision:
        return failed(f"current is {status.current_revision}, the last good one {status.last_good_revision}")
    return passed(f"revision {status.current_revision}")
