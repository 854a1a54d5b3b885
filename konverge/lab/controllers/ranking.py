"""Which pods a ReplicaSet gives up first, in kube-controller-manager's order.

Source: ``pkg/controller/controller_utils.go``, ActivePodsWithRanks, with LogarithmicScaleDown as it is on
by default.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from konverge.kube.resources import Object
from konverge.lab.controllers.conditions import find_condition, parse_time, pod_is_ready

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def rank_for_deletion(pods: Iterable[Object], related: Iterable[Object], moment: datetime) -> list[Object]:
    """Return the pods in the order in which they are deleted.

    ``related`` are the active pods of all ReplicaSets of the same owner: of two equal pods the one on the
    node with more of them goes first.
    """
    crowd = Counter(node_of(pod) for pod in related)
    return sorted(pods, key=lambda pod: _rank(pod, crowd[node_of(pod)], moment))


def node_of(pod: Object) -> str:
    """Return the node that a pod is bound to, or ""."""
    return str(pod["spec"].get("nodeName") or "")


def _rank(pod: Object, neighbours: int, moment: datetime) -> tuple[Any, ...]:
    ready = pod_is_ready(pod)
    since = parse_time((find_condition(pod, "Ready") or {}).get("lastTransitionTime")) if ready else None
    return (
        bool(node_of(pod)),
        _PHASES.get((pod.get("status") or {}).get("phase", "Pending"), 2),
        ready,
        _deletion_cost(pod),
        -neighbours,
        _age_bucket(since, moment),
        -_restarts(pod),
        _age_bucket(parse_time(pod["metadata"].get("creationTimestamp")), moment),
        pod["metadata"]["uid"],
    )


def _deletion_cost(pod: Object) -> int:
    text = (pod["metadata"].get("annotations") or {}).get(DELETION_COST, "0")
    try:
        return int(text)
    except ValueError:
        return 0


def _restarts(pod: Object) -> int:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return max((int(status.get("restartCount", 0)) for status in statuses), default=0)


def _age_bucket(since: datetime | None, moment: datetime) -> int:
    """Return the binary logarithm of the age in nanoseconds: pods of similar age are equal."""
    if since is None:
        return -1
    age = int((moment - since).total_seconds() * 1e9)
    return int(math.log2(age)) if age > 0 else -1
