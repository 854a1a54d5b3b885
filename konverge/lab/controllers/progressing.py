"""The status of a Deployment: counts and the conditions Available, Progressing and ReplicaFailure.

Source: ``pkg/controller/deployment/progress.go`` and ``sync.go`` of Kubernetes; the messages are its own,
because ``kubectl rollout status`` and operators look for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from konverge.kube.resources import Object
from konverge.lab.controllers.conditions import (
    Condition,
    find_condition,
    format_time,
    merge_condition,
    parse_time,
)
from konverge.lab.controllers.rolling import available_of, max_unavailable, replicas_of, total_of

TIMED_OUT = "ProgressDeadlineExceeded"
COMPLETE = "NewReplicaSetAvailable"
NO_DEADLINE = 2**31 - 1
"""``progressDeadlineSeconds`` of this value means none."""


def make_condition(kind: str, status: bool, reason: str, message: str, moment: datetime) -> Condition:
    """Return a Deployment condition that changed at ``moment``."""
    return {
        "type": kind,
        "status": "True" if status else "False",
        "lastUpdateTime": format_time(moment),
        "lastTransitionTime": format_time(moment),
        "reason": reason,
        "message": message,
    }


def count_replicas(deployment: Object, sets: Sequence[Object], new: Object | None) -> Object:
    """Return the counts of the status; zero counts are left out."""
    available = sum(available_of(item) for item in sets)
    status_sum = {
        "replicas": sum(_count(item, "replicas") for item in sets),
        "updatedReplicas": _count(new, "replicas") if new else 0,
        "readyReplicas": sum(_count(item, "readyReplicas") for item in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, total_of(sets) - available),
    }
    counts: Object = {name: count for name, count in status_sum.items() if count}
    counts["observedGeneration"] = deployment["metadata"].get("generation", 0)
    collisions = (deployment.get("status") or {}).get("collisionCount")
    return counts if collisions is None else {**counts, "collisionCount": collisions}


def is_complete(deployment: Object, counts: Object) -> bool:
    """Tell whether every wanted replica is of the new template and available, and no other is left."""
    wanted = replicas_of(deployment)
    return all(counts.get(name, 0) == wanted for name in ("updatedReplicas", "replicas", "availableReplicas"))


def has_progressed(deployment: Object, counts: Object) -> bool:
    """Tell whether the counts have moved towards the new template since the last status."""
    held = deployment.get("status") or {}

    def old_pods(status: Object) -> int:
        return int(status.get("replicas", 0)) - int(status.get("updatedReplicas", 0))

    grown = ("updatedReplicas", "readyReplicas", "availableReplicas")
    return old_pods(counts) < old_pods(held) or any(counts.get(name, 0) > held.get(name, 0) for name in grown)


def deadline_of(deployment: Object) -> float | None:
    """Return ``progressDeadlineSeconds``, or None where there is none."""
    seconds = deployment["spec"].get("progressDeadlineSeconds")
    return None if seconds in (None, NO_DEADLINE) else float(seconds)


def seconds_until_timeout(deployment: Object, moment: datetime) -> float | None:
    """Return when an unfinished rollout times out; None where it cannot."""
    condition, deadline = find_condition(deployment, "Progressing"), deadline_of(deployment)
    if condition is None or deadline is None or condition.get("reason") in (COMPLETE, TIMED_OUT):
        return None
    since = parse_time(condition.get("lastUpdateTime")) or moment
    return (since + timedelta(seconds=deadline) - moment).total_seconds()


def judge_progress(
    deployment: Object, counts: Object, new: Object | None, moment: datetime
) -> tuple[Condition | None, bool]:
    """Return the Progressing condition to merge, or None, and whether it replaces one of the same reason."""
    if deadline_of(deployment) is None:
        return None, False
    held = find_condition(deployment, "Progressing")
    finished = counts.get("replicas", 0) == counts.get("updatedReplicas", 0)
    if finished and held is not None and held.get("reason") == COMPLETE:
        return None, False
    name = f'ReplicaSet "{new["metadata"]["name"]}"' if new else f'Deployment "{deployment["metadata"]["name"]}"'
    if is_complete(deployment, counts):
        text = f"{name} has successfully progressed."
        return make_condition("Progressing", True, COMPLETE, text, moment), False
    if has_progressed(deployment, counts):
        text = f"{name} is progressing."
        return make_condition("Progressing", True, "ReplicaSetUpdated", text, moment), True
    left = seconds_until_timeout(deployment, moment)
    if left is not None and left <= 0:
        return make_condition("Progressing", False, TIMED_OUT, f"{name} has timed out progressing.", moment), False
    return None, False


def judge_availability(deployment: Object, counts: Object, moment: datetime) -> Condition:
    """Return the Available condition."""
    if counts.get("availableReplicas", 0) >= replicas_of(deployment) - max_unavailable(deployment):
        text = "Deployment has minimum availability."
        return make_condition("Available", True, "MinimumReplicasAvailable", text, moment)
    text = "Deployment does not have minimum availability."
    return make_condition("Available", False, "MinimumReplicasUnavailable", text, moment)


def status_of(
    deployment: Object,
    sets: Sequence[Object],
    new: Object | None,
    moment: datetime,
    extra: Condition | None = None,
) -> Object:
    """Return the whole status; ``extra`` is a condition that the caller has to add."""
    counts = count_replicas(deployment, sets, new)
    held: list[Condition] = list((deployment.get("status") or {}).get("conditions") or [])
    if deadline_of(deployment) is None:
        held = [condition for condition in held if condition["type"] != "Progressing"]
    conditions = merge_condition(held, judge_availability(deployment, counts, moment))
    if extra is not None:
        conditions = merge_condition(conditions, extra)
    progress, touch = judge_progress(deployment, counts, new, moment)
    if progress is not None:
        conditions = merge_condition(conditions, progress, touch=touch)
    return {**counts, "conditions": _with_failure(conditions, sets, new)}


def _with_failure(conditions: list[Condition], sets: Sequence[Object], new: Object | None) -> list[Condition]:
    rest = [condition for condition in conditions if condition["type"] != "ReplicaFailure"]
    suspects = [new] if new else list(sets)
    failures = [found for item in suspects if (found := find_condition(item, "ReplicaFailure"))]
    if not failures:
        return rest
    stamp = failures[0].get("lastTransitionTime")
    return [*rest, {**failures[0], "lastUpdateTime": stamp, "lastTransitionTime": stamp}]


def _count(item: Object, name: str) -> int:
    return int((item.get("status") or {}).get(name, 0))
