"""The arithmetic of a rollout: pure functions of a Deployment and its ReplicaSets.

Source: ``pkg/controller/deployment`` and ``util/deployment_util.go`` of Kubernetes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from konverge.kube.resources import Object

DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"


def replicas_of(item: Object) -> int:
    """Return ``spec.replicas``."""
    return int(item["spec"].get("replicas", 1))


def available_of(item: Object) -> int:
    """Return ``status.availableReplicas``."""
    return int((item.get("status") or {}).get("availableReplicas", 0))


def total_of(sets: Iterable[Object]) -> int:
    """Return how many replicas the sets are to have together."""
    return sum(replicas_of(item) for item in sets)


def scale_value(value: int | str, total: int, *, up: bool) -> int:
    """Resolve an IntOrString: a percentage is taken of ``total`` and rounded up or down."""
    if isinstance(value, int):
        return value
    share = int(value.rstrip("%")) * total / 100
    return math.ceil(share) if up else math.floor(share)


def resolve_fenceposts(deployment: Object) -> tuple[int, int]:
    """Return (maxSurge, maxUnavailable) as numbers; surge is rounded up, unavailable down.

    Both being zero would never move, so that one may be unavailable then. Recreate has neither.
    """
    strategy = deployment["spec"].get("strategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return 0, 0
    rolling = strategy.get("rollingUpdate") or {}
    wanted = replicas_of(deployment)
    surge = scale_value(rolling.get("maxSurge", "25%"), wanted, up=True)
    unavailable = scale_value(rolling.get("maxUnavailable", "25%"), wanted, up=False)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def max_unavailable(deployment: Object) -> int:
    """Return how many replicas may be unavailable."""
    wanted = replicas_of(deployment)
    return 0 if wanted == 0 else min(resolve_fenceposts(deployment)[1], wanted)


def new_size(deployment: Object, sets: Sequence[Object], new: Object | None) -> int:
    """Return the size of the new ReplicaSet for this step of the rollout."""
    wanted = replicas_of(deployment)
    strategy = (deployment["spec"].get("strategy") or {}).get("type", "RollingUpdate")
    if strategy == "Recreate":
        return wanted
    held = replicas_of(new) if new is not None else 0
    room = wanted + resolve_fenceposts(deployment)[0] - total_of(sets)
    return held if room <= 0 else held + min(room, wanted - held)


def shrink_old(deployment: Object, old: Sequence[Object], new: Object) -> list[tuple[Object, int]]:
    """Return the new sizes of old ReplicaSets: unhealthy replicas first, then oldest sets first."""
    budget = (
        total_of([*old, new])
        - (replicas_of(deployment) - max_unavailable(deployment))
        - (replicas_of(new) - available_of(new))
    )
    if total_of(old) == 0 or budget <= 0:
        return []
    sizes = {item["metadata"]["uid"]: replicas_of(item) for item in old}
    ordered = sorted(old, key=lambda item: str(item["metadata"].get("creationTimestamp")))
    _drop_unhealthy(ordered, sizes, budget)
    _drop_available(deployment, [*old, new], ordered, sizes)
    return [
        (item, sizes[item["metadata"]["uid"]])
        for item in ordered
        if sizes[item["metadata"]["uid"]] != replicas_of(item)
    ]


def _drop_unhealthy(ordered: Sequence[Object], sizes: dict[str, int], budget: int) -> None:
    for item in ordered:
        uid = item["metadata"]["uid"]
        count = min(budget, max(0, sizes[uid] - available_of(item)))
        sizes[uid] -= count
        budget -= count


def _drop_available(
    deployment: Object, sets: Sequence[Object], ordered: Sequence[Object], sizes: dict[str, int]
) -> None:
    minimum = replicas_of(deployment) - max_unavailable(deployment)
    # A set that was shrunk a moment ago still reports the pods it is about to lose.
    budget = sum(min(available_of(item), replicas_of(item)) for item in sets) - minimum
    for item in ordered:
        uid = item["metadata"]["uid"]
        count = max(0, min(budget, sizes[uid]))
        sizes[uid] -= count
        budget -= count


def spread(deployment: Object, sets: Sequence[Object]) -> list[tuple[Object, int]]:
    """Return (set, size) for scaling in the middle of a rollout: in proportion to the sizes held."""
    wanted = replicas_of(deployment)
    allowed = wanted + resolve_fenceposts(deployment)[0] if wanted else 0
    to_add = allowed - total_of(sets)
    ordered = sorted(sets, key=lambda item: str(item["metadata"].get("creationTimestamp")), reverse=to_add > 0)
    ordered = sorted(ordered, key=replicas_of, reverse=True)
    sizes, added = [], 0
    for item in ordered:
        part = _proportion(deployment, item, to_add, added)
        sizes.append(replicas_of(item) + part)
        added += part
    if sizes and to_add:
        sizes[0] = max(0, sizes[0] + to_add - added)
    return list(zip(ordered, sizes, strict=True))


def _proportion(deployment: Object, item: Object, to_add: int, added: int) -> int:
    held = replicas_of(item)
    if held == 0 or to_add in (0, added):
        return 0
    share, allowed = _fraction(deployment, item, held), to_add - added
    return min(share, allowed) if to_add > 0 else max(share, allowed)


def _fraction(deployment: Object, item: Object, held: int) -> int:
    wanted = replicas_of(deployment)
    if wanted == 0:
        return -held
    maximum = wanted + resolve_fenceposts(deployment)[0]
    noted = (item["metadata"].get("annotations") or {}).get(MAXIMUM)
    before = int(noted) if noted else int((deployment.get("status") or {}).get("replicas", 0))
    return math.floor(held * maximum / before + 0.5) - held if before else 0
