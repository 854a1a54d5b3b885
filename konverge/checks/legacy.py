"""Checks of a release that is about to be migrated, and of what it leaves behind."""

from __future__ import annotations

import re

from konverge.checks.registry import Answer, NotApplicable, Severity, Stage, check, failed, failed_if, passed
from konverge.checks.scene import Object, Scene
from konverge.decide.legacy import CONTROLLER_CONTAINER, LegacyRelease
from konverge.translate.settings import FEATURES, WITHOUT_EFFECT

CATEGORY = "Legacy release"
NONE = "there is no release to migrate (--release)"
KIC = re.compile(r":v?(\d+)\.(\d+)")
KNOWN_CONTROLLERS = range(2, 4)
"""Major versions of KIC whose settings are understood."""
KNOWN_GATES = frozenset(FEATURES) | WITHOUT_EFFECT
SHORTEST_GRACE = 10
"""Seconds that a pod needs at least to serve its last requests while balancers notice that it left."""


def read_release(scene: Scene) -> LegacyRelease | None:
    """Return the release, or None where none was named or it was not recognised: one check says why."""
    return scene.release.value if scene.release is not None else None


def _require(scene: Scene) -> LegacyRelease:
    release = read_release(scene)
    if release is None:
        raise NotApplicable(NONE)
    return release


def _deployment(scene: Scene, release: LegacyRelease) -> Object:
    return scene.find("deployments", release.deployment) or {"spec": {"template": {"spec": {}}}, "status": {}}


@check(
    "legacy-found",
    CATEGORY,
    Severity.ERROR,
    "The release is one with a controller in each proxy pod",
    fix="Name the release as `helm list` shows it, or the Deployment with --deployment.",
    stage=Stage.BEFORE,
)
def legacy_found(scene: Scene) -> Answer:
    """Recognised: Deployment, Service, DB-less; the failure of the recognition says what is not."""
    if scene.release is None:
        raise NotApplicable(NONE)
    release = scene.release.get()
    return passed(f"Deployment {release.deployment}, {release.replicas} proxies, Service {release.service}")


@check(
    "legacy-ready",
    CATEGORY,
    Severity.ERROR,
    "Every proxy of the release is ready",
    fix="Bring the release to health first: kubectl rollout status deployment NAME.",
    stage=Stage.BEFORE,
)
def legacy_ready(scene: Scene) -> Answer:
    """Ready replicas equal the desired ones."""
    release = _require(scene)
    text = f"{release.ready} of {release.replicas} ready"
    return passed(text) if 0 < release.replicas <= release.ready else failed(text)


@check(
    "legacy-settled",
    CATEGORY,
    Severity.ERROR,
    "No rollout of the release is under way",
    fix="Wait for the end of the rollout or undo it: two rollouts of the same pods cannot be told apart.",
    stage=Stage.BEFORE,
)
def legacy_settled(scene: Scene) -> Answer:
    """The Deployment's controller has seen the newest spec, and all pods are of it."""
    release = _require(scene)
    body = _deployment(scene, release)
    status = body.get("status", {})
    seen = status.get("observedGeneration", 0) >= body.get("metadata", {}).get("generation", 0)
    updated = status.get("updatedReplicas", 0)
    if seen and updated == release.replicas == status.get("replicas", updated):
        return passed(f"{updated} pods of the newest template")
    return failed(f"{updated} of {release.replicas} pods are of the newest template")


@check(
    "legacy-controller",
    CATEGORY,
    Severity.WARNING,
    "The version of the release's controller is known",
    fix="Compare with `konverge diff` before the traffic moves; the migration's parity check does the same.",
    stage=Stage.BEFORE,
)
def legacy_controller(scene: Scene) -> Answer:
    """The image's tag names a major version whose settings are understood."""
    release = _require(scene)
    containers = _deployment(scene, release)["spec"]["template"]["spec"].get("containers", ())
    image = next((c.get("image", "") for c in containers if c.get("name") == CONTROLLER_CONTAINER), "")
    match = KIC.search(image)
    if match is None:
        return failed(f"the image {image!r} names no version")
    return passed(image) if int(match[1]) in KNOWN_CONTROLLERS else failed(f"{image} is not a version that is known")


@check(
    "legacy-grace",
    CATEGORY,
    Severity.WARNING,
    "Proxies of the release have time to finish their last requests",
    fix="Raise terminationGracePeriodSeconds of the release before the migration.",
    stage=Stage.BEFORE,
)
def legacy_grace(scene: Scene) -> Answer:
    """The grace period is longer than balancers need to notice."""
    release = _require(scene)
    grace = _deployment(scene, release)["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)
    text = f"{grace} s"
    return passed(text) if grace >= SHORTEST_GRACE else failed(f"{text}: shorter than {SHORTEST_GRACE} s")


@check(
    "legacy-autoscaler",
    CATEGORY,
    Severity.WARNING,
    "No autoscaler changes the release while it is migrated",
    fix="Pause the HorizontalPodAutoscaler (minReplicas = maxReplicas) until the migration is done.",
    stage=Stage.BEFORE,
)
def legacy_autoscaler(scene: Scene) -> Answer:
    """No HPA aims at the Deployment, or it cannot move."""
    release = _require(scene)
    moving = [
        f"HorizontalPodAutoscaler {body['metadata']['name']} may scale it between {low} and {high}"
        for body in scene.list("horizontalpodautoscalers")
        if body["spec"]["scaleTargetRef"].get("name") == release.deployment
        and (low := body["spec"].get("minReplicas", 1)) != (high := body["spec"]["maxReplicas"])
    ]
    return failed_if(moving, "none")


@check(
    "legacy-features",
    CATEGORY,
    Severity.WARNING,
    "The feature gates of the release are known",
    fix="docs/reference/translation names the gates that are understood; parity is checked before traffic moves.",
    stage=Stage.BEFORE,
)
def legacy_features(scene: Scene) -> Answer:
    """Every gate of the release is one that the translation has."""
    release = _require(scene)
    return failed_if(
        (f"feature gate {name} is not known" for name in release.features if name not in KNOWN_GATES),
        ", ".join(sorted(release.features)) or "none set",
    )
