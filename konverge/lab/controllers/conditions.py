"""Conditions and timestamps of Kubernetes objects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from konverge.kube.resources import Object

Condition = dict[str, Any]


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """Write a time as Kubernetes does: RFC 3339 in whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str | None) -> datetime | None:
    """Read a time as Kubernetes writes it; None for None and for an empty text."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def find_condition(item: Object, kind: str) -> Condition | None:
    """Return the condition of that type from ``status.conditions``, or None."""
    conditions: list[Condition] = (item.get("status") or {}).get("conditions") or []
    return next((condition for condition in conditions if condition.get("type") == kind), None)


def holds(item: Object, kind: str) -> bool:
    """Tell whether the condition is True."""
    condition = find_condition(item, kind)
    return condition is not None and condition.get("status") == "True"


def merge_condition(conditions: list[Condition], new: Condition, *, touch: bool = False) -> list[Condition]:
    """Return the list with ``new`` in it, as kube-controller-manager merges Deployment conditions.

    The same status and reason leaves the old one alone unless ``touch``; the same status alone keeps
    ``lastTransitionTime``.
    """
    old = next((condition for condition in conditions if condition["type"] == new["type"]), None)
    if old is not None and old["status"] == new["status"]:
        if old.get("reason") == new.get("reason") and not touch:
            return conditions
        new = {**new, "lastTransitionTime": old.get("lastTransitionTime", new["lastTransitionTime"])}
    return [condition for condition in conditions if condition["type"] != new["type"]] + [new]


def pod_is_ready(pod: Object) -> bool:
    """Tell whether the pod's Ready condition is True."""
    return holds(pod, "Ready")


def pod_is_active(pod: Object) -> bool:
    """Tell whether a pod counts for its ReplicaSet: neither finished nor being deleted."""
    phase = (pod.get("status") or {}).get("phase")
    return phase not in ("Succeeded", "Failed") and not pod["metadata"].get("deletionTimestamp")


def pod_is_available(pod: Object, min_ready_seconds: int, moment: datetime) -> bool:
    """Tell whether a pod has been ready for at least ``min_ready_seconds``."""
    return pod_is_ready(pod) and seconds_until_available(pod, min_ready_seconds, moment) <= 0


def seconds_until_available(pod: Object, min_ready_seconds: int, moment: datetime) -> float:
    """Return how long a ready pod has to stay ready until it counts as available."""
    since = parse_time((find_condition(pod, "Ready") or {}).get("lastTransitionTime"))
    if min_ready_seconds == 0 or since is None:
        return 0.0
    return min_ready_seconds - (moment - since).total_seconds()
