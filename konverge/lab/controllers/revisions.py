"""Revisions of a Deployment: its ReplicaSets, old and new, and the annotations that number them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

from konverge.kube.resources import DEPLOYMENTS, Object
from konverge.lab.controllers.hashing import LABEL, hash_template, same_template
from konverge.lab.controllers.owning import reference_to
from konverge.lab.controllers.rolling import DESIRED, MAXIMUM, replicas_of, resolve_fenceposts

REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
_NOT_COPIED = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        REVISION,
        HISTORY,
        DESIRED,
        MAXIMUM,
        "deprecated.deployment.rollback.to",
    }
)


def revision_of(item: Object) -> int:
    """Return the revision number noted on a ReplicaSet or Deployment; 0 where there is none."""
    text = (item["metadata"].get("annotations") or {}).get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def find_new(deployment: Object, sets: Iterable[Object]) -> Object | None:
    """Return the oldest ReplicaSet with the Deployment's template, or None."""
    ordered = sorted(sets, key=lambda item: str(item["metadata"].get("creationTimestamp")))
    template = deployment["spec"]["template"]
    return next((item for item in ordered if same_template(item["spec"]["template"], template)), None)


def next_revision(old: Sequence[Object]) -> int:
    """Return the number for the new ReplicaSet: one more than the highest of the old ones."""
    return max((revision_of(item) for item in old), default=0) + 1


def annotate(deployment: Object, held: dict[str, str], revision: int) -> dict[str, str]:
    """Return the annotations of the new ReplicaSet."""
    own = deployment["metadata"].get("annotations") or {}
    copied = {name: value for name, value in own.items() if name not in _NOT_COPIED}
    annotations = {**held, **copied}
    before = held.get(REVISION)
    if before is None or not before.isdigit() or int(before) < revision:
        annotations[REVISION] = str(revision)
        if before:
            annotations[HISTORY] = ",".join(filter(None, [held.get(HISTORY), before]))
    return annotations


def size_annotations(deployment: Object) -> dict[str, str]:
    """Return the annotations that let a later scaling keep the proportions."""
    wanted = replicas_of(deployment)
    return {DESIRED: str(wanted), MAXIMUM: str(wanted + resolve_fenceposts(deployment)[0])}


def make_replica_set(deployment: Object, size: int, revision: int) -> Object:
    """Return the ReplicaSet for the Deployment's template."""
    spec = deployment["spec"]
    collisions = int((deployment.get("status") or {}).get("collisionCount", 0))
    label = {LABEL: hash_template(spec["template"], collisions)}
    template = copy.deepcopy(spec["template"])
    metadata = template.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **label}
    selector = copy.deepcopy(spec["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), **label}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{deployment['metadata']['name']}-{label[LABEL]}",
            "namespace": deployment["metadata"]["namespace"],
            "labels": metadata["labels"],
            "annotations": {**annotate(deployment, {}, revision), **size_annotations(deployment)},
            "ownerReferences": [reference_to(deployment, DEPLOYMENTS)],
        },
        "spec": {
            "replicas": size,
            "minReadySeconds": int(spec.get("minReadySeconds", 0)),
            "selector": selector,
            "template": template,
        },
    }


def superfluous(deployment: Object, old: Sequence[Object]) -> list[Object]:
    """Return the old ReplicaSets beyond ``revisionHistoryLimit``, lowest revision first."""
    limit = deployment["spec"].get("revisionHistoryLimit")
    if limit is None:
        return []
    ordered = sorted(old, key=lambda item: (revision_of(item), str(item["metadata"].get("creationTimestamp"))))
    return [item for item in ordered[: max(0, len(ordered) - int(limit))] if _is_empty(item)]


def _is_empty(item: Object) -> bool:
    status = item.get("status") or {}
    settled = int(status.get("observedGeneration", 0)) >= int(item["metadata"].get("generation", 0))
    return (
        replicas_of(item) == 0
        and int(status.get("replicas", 0)) == 0
        and settled
        and not item["metadata"].get("deletionTimestamp")
    )
