"""ReplicaSets: as many active pods as wanted, adopted, released, created in growing batches."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence

from konverge.errors import KonvergeError, NotFound
from konverge.kube.resources import PODS, REPLICA_SETS, Object
from konverge.lab.controllers.conditions import (
    Condition,
    find_condition,
    format_time,
    now,
    pod_is_active,
    pod_is_available,
    pod_is_ready,
    seconds_until_available,
)
from konverge.lab.controllers.owning import Claiming, controller_of, is_controlled_by, reference_to
from konverge.lab.controllers.ranking import rank_for_deletion
from konverge.lab.controllers.reconciling import Controller, World, key_of
from konverge.lab.controllers.selecting import labels_of, matches

BURST = 500
"""Pods created or deleted by one sync at most; kube-controller-manager's BurstReplicas."""


class ReplicaSets(Controller):
    """Reconciles ReplicaSets with their pods."""

    name = "replicaset-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._sets = self.watch_own(REPLICA_SETS)
        self._pods = world.cache(PODS)
        self._pods.subscribe(self._on_pod)
        self._claiming = Claiming(world.client, REPLICA_SETS, self._pods)

    def _on_pod(self, old: Object | None, new: Object | None) -> None:
        for pod in (old, new):
            if pod is None:
                continue
            reference = controller_of(pod)
            if reference is None:
                self._queue_adopters(pod)
            elif reference["kind"] == REPLICA_SETS.kind:
                self.queue.add((pod["metadata"]["namespace"], reference["name"]))

    def _queue_adopters(self, pod: Object) -> None:
        for owner in self._sets.items(pod["metadata"]["namespace"]):
            if matches(owner["spec"].get("selector"), labels_of(pod)):
                self.queue.add(key_of(owner))

    async def reconcile(self, namespace: str, name: str) -> None:
        """Create or delete pods, then write the status."""
        owner = self._sets.get(namespace, name)
        if owner is None:
            return
        active = [pod for pod in self._pods.items(namespace) if pod_is_active(pod)]
        pods = await self._claiming.claim(owner, active)
        failure: KonvergeError | None = None
        if not owner["metadata"].get("deletionTimestamp"):
            failure = await self._scale(owner, pods)
        await self._write_status(owner, pods, failure)
        if failure is not None:
            raise failure

    async def _scale(self, owner: Object, pods: list[Object]) -> KonvergeError | None:
        missing = int(owner["spec"].get("replicas", 1)) - len(pods)
        try:
            if missing > 0:
                await run_in_batches(min(missing, BURST), lambda: self._create(owner))
            elif missing < 0:
                ranked = rank_for_deletion(pods, self._related(owner), now())
                surplus = ranked[: min(-missing, BURST)]
                await asyncio.gather(*(self._delete(owner, pod) for pod in surplus))
        except KonvergeError as error:
            return error
        return None

    async def _create(self, owner: Object) -> None:
        try:
            pod = await self.client.create(PODS, pod_of(owner))
        except KonvergeError as error:
            self.recorder.emit(owner, "FailedCreate", f"Error creating: {error.message}", warning=True)
            raise
        self._pods.note(pod)
        self.recorder.emit(owner, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")

    async def _delete(self, owner: Object, pod: Object) -> None:
        metadata = pod["metadata"]
        try:
            await self.client.delete(PODS, metadata["name"], metadata["namespace"])
        except KonvergeError as error:
            self.recorder.emit(owner, "FailedDelete", f"Error deleting: {error.message}", warning=True)
            raise
        self._pods.mark_deleting(pod)
        self.recorder.emit(owner, "SuccessfulDelete", f"Deleted pod: {metadata['name']}")

    def _related(self, owner: Object) -> list[Object]:
        """Return the active pods of every ReplicaSet with the same owner."""
        namespace = owner["metadata"]["namespace"]
        parent = controller_of(owner)
        family = [owner]
        if parent is not None:
            sets = self._sets.items(namespace)
            family = [item for item in sets if (controller_of(item) or {}).get("uid") == parent["uid"]]
        return [
            pod
            for pod in self._pods.items(namespace)
            if pod_is_active(pod) and any(is_controlled_by(pod, item) for item in family)
        ]

    async def _write_status(self, owner: Object, pods: Sequence[Object], failure: KonvergeError | None) -> None:
        status = status_of(owner, pods, failure)
        self._queue_when_available(owner, pods)
        if status == (owner.get("status") or {}):
            return
        body = {**owner, "status": status}
        try:
            self._sets.note(await self.client.replace(REPLICA_SETS, body, "status"))
        except NotFound:
            return

    def _queue_when_available(self, owner: Object, pods: Sequence[Object]) -> None:
        wanted = int(owner["spec"].get("minReadySeconds", 0))
        waits = [seconds_until_available(pod, wanted, now()) for pod in pods if pod_is_ready(pod)]
        pending = [wait for wait in waits if wait > 0]
        if pending:
            self.queue.add_after(key_of(owner), min(pending) + 0.01)


def pod_of(owner: Object) -> Object:
    """Return the pod that a ReplicaSet creates from its template."""
    template = copy.deepcopy(owner["spec"]["template"])
    metadata = template.get("metadata") or {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": owner["metadata"]["name"] + "-",
            "namespace": owner["metadata"]["namespace"],
            "labels": metadata.get("labels") or {},
            "annotations": metadata.get("annotations") or {},
            "finalizers": metadata.get("finalizers") or [],
            "ownerReferences": [reference_to(owner, REPLICA_SETS)],
        },
        "spec": template["spec"],
    }


def status_of(owner: Object, pods: Sequence[Object], failure: KonvergeError | None) -> Object:
    """Return the status of a ReplicaSet; zero counts are left out, as Kubernetes leaves them out."""
    moment = now()
    wanted = int(owner["spec"].get("minReadySeconds", 0))
    template = ((owner["spec"].get("template") or {}).get("metadata") or {}).get("labels") or {}
    counts = {
        "fullyLabeledReplicas": sum(template.items() <= labels_of(pod).items() for pod in pods),
        "readyReplicas": sum(pod_is_ready(pod) for pod in pods),
        "availableReplicas": sum(pod_is_available(pod, wanted, moment) for pod in pods),
    }
    status: Object = {"replicas": len(pods), **{name: count for name, count in counts.items() if count}}
    status["observedGeneration"] = owner["metadata"].get("generation", 0)
    conditions = _conditions(owner, pods, failure)
    if conditions:
        status["conditions"] = conditions
    return status


def _conditions(owner: Object, pods: Sequence[Object], failure: KonvergeError | None) -> list[Condition]:
    held: list[Condition] = (owner.get("status") or {}).get("conditions") or []
    if failure is None:
        return [condition for condition in held if condition["type"] != "ReplicaFailure"]
    if find_condition(owner, "ReplicaFailure") is not None:
        return held
    missing = int(owner["spec"].get("replicas", 1)) > len(pods)
    new = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate" if missing else "FailedDelete",
        "message": failure.message,
        "lastTransitionTime": format_time(now()),
    }
    return [*held, new]


async def run_in_batches(count: int, act: Callable[[], Awaitable[None]]) -> int:
    """Run ``act`` ``count`` times in batches of 1, 2, 4 ... and stop at the first batch with a failure.

    That is kube-controller-manager's slow start: a template that is always refused costs one call, not 500.
    Returns how many went well; raises the first failure where there was one.
    """
    size, left, succeeded = 1, count, 0
    while left > 0:
        batch = min(size, left)
        outcomes = await asyncio.gather(*(act() for _ in range(batch)), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        succeeded += batch - len(failures)
        if failures:
            raise failures[0]
        left -= batch
        size *= 2
    return succeeded
