"""PodDisruptionBudgets: how many pods may be evicted now.

The Eviction API reads ``status.disruptionsAllowed`` and notes an eviction in ``status.disruptedPods``; this
controller computes the first and forgets the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from konverge.errors import NotFound
from konverge.kube.resources import DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS, Object
from konverge.lab.controllers.conditions import format_time, merge_condition, now, parse_time, pod_is_ready
from konverge.lab.controllers.owning import controller_of
from konverge.lab.controllers.reconciling import Controller, World, key_of
from konverge.lab.controllers.rolling import replicas_of, scale_value
from konverge.lab.controllers.selecting import labels_of, matches

DISRUPTED_SECONDS = 120
"""An eviction that did not delete its pod within this time is forgotten (DeletionTimeout)."""


class DisruptionBudgets(Controller):
    """Writes the status of PodDisruptionBudgets."""

    name = "disruption-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._budgets = self.watch_own(POD_DISRUPTION_BUDGETS)
        self._pods = world.cache(PODS)
        self._pods.subscribe(self._on_pod)
        self._sets = world.cache(REPLICA_SETS)
        self._deployments = world.cache(DEPLOYMENTS)
        self._deployments.subscribe(self._on_owner)

    def _on_pod(self, old: Object | None, new: Object | None) -> None:
        for pod in (old, new):
            if pod is None:
                continue
            for budget in self._budgets.items(pod["metadata"]["namespace"]):
                if matches(budget["spec"].get("selector"), labels_of(pod)):
                    self.queue.add(key_of(budget))

    def _on_owner(self, old: Object | None, new: Object | None) -> None:
        item = new or old
        if item is not None:
            for budget in self._budgets.items(item["metadata"]["namespace"]):
                self.queue.add(key_of(budget))

    async def reconcile(self, namespace: str, name: str) -> None:
        """Write the status of one budget."""
        budget = self._budgets.get(namespace, name)
        if budget is None:
            return
        selector = budget["spec"].get("selector")
        pods = [pod for pod in self._pods.items(namespace) if matches(selector, labels_of(pod)) and _is_counted(pod)]
        status = self._status(budget, pods, now())
        if status.get("disruptedPods"):
            self.queue.add_after((namespace, name), DISRUPTED_SECONDS)
        if status == (budget.get("status") or {}):
            return
        try:
            body = {**budget, "status": status}
            self._budgets.note(await self.client.replace(POD_DISRUPTION_BUDGETS, body, "status"))
        except NotFound:
            return

    def _status(self, budget: Object, pods: Sequence[Object], moment: datetime) -> Object:
        expected, desired = count_expected(budget, len(pods), self._scale_of(pods))
        disrupted = still_disrupted(budget, pods, moment)
        healthy = sum(
            pod_is_ready(pod)
            and not pod["metadata"].get("deletionTimestamp")
            and pod["metadata"]["name"] not in disrupted
            for pod in pods
        )
        allowed = max(0, healthy - desired) if expected > 0 else 0
        status: Object = {
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "disruptionsAllowed": allowed,
            "expectedPods": expected,
            "observedGeneration": budget["metadata"].get("generation", 0),
        }
        if disrupted:
            status["disruptedPods"] = disrupted
        held = (budget.get("status") or {}).get("conditions") or []
        status["conditions"] = merge_condition(held, _condition(budget, allowed, moment))
        return status

    def _scale_of(self, pods: Sequence[Object]) -> int:
        """Return the sum of ``spec.replicas`` over the distinct controllers of the pods."""
        owners: dict[str, int] = {}
        for pod in pods:
            owner = self._top_owner(pod)
            if owner is not None:
                owners[owner["metadata"]["uid"]] = replicas_of(owner)
        return sum(owners.values())

    def _top_owner(self, pod: Object) -> Object | None:
        namespace = pod["metadata"]["namespace"]
        reference = controller_of(pod)
        item = self._sets.get(namespace, reference["name"]) if reference else None
        parent = controller_of(item) if item else None
        return self._deployments.get(namespace, parent["name"]) if parent else item


def count_expected(budget: Object, pods: int, scale: int) -> tuple[int, int]:
    """Return (expectedPods, desiredHealthy); a whole-number minAvailable needs no controller."""
    spec = budget["spec"]
    if spec.get("maxUnavailable") is not None:
        return scale, max(0, scale - scale_value(spec["maxUnavailable"], scale, up=True))
    minimum = spec.get("minAvailable", 1)
    if isinstance(minimum, int):
        return pods, minimum
    return scale, scale_value(minimum, scale, up=True)


def still_disrupted(budget: Object, pods: Sequence[Object], moment: datetime) -> dict[str, str]:
    """Return the evictions whose pods are neither gone nor being deleted, as long as they are young."""
    noted: dict[str, str] = (budget.get("status") or {}).get("disruptedPods") or {}
    alive = {pod["metadata"]["name"] for pod in pods if not pod["metadata"].get("deletionTimestamp")}
    kept = {}
    for name, stamp in noted.items():
        since = parse_time(stamp) or moment
        if name in alive and (moment - since).total_seconds() < DISRUPTED_SECONDS:
            kept[name] = stamp
    return kept


def _is_counted(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def _condition(budget: Object, allowed: int, moment: datetime) -> Object:
    return {
        "type": "DisruptionAllowed",
        "status": "True" if allowed else "False",
        "reason": "SufficientPods" if allowed else "InsufficientPods",
        "message": "",
        "lastTransitionTime": format_time(moment),
        "observedGeneration": budget["metadata"].get("generation", 0),
    }
