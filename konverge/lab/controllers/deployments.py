"""Deployments: rollouts by RollingUpdate and Recreate, scaling, pausing, history and status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from konverge.errors import Conflict, NotFound
from konverge.kube.resources import DEPLOYMENTS, PODS, REPLICA_SETS, Object
from konverge.lab.controllers.conditions import Condition, find_condition, now
from konverge.lab.controllers.hashing import same_template
from konverge.lab.controllers.owning import Claiming, controller_of, is_controlled_by
from konverge.lab.controllers.progressing import (
    TIMED_OUT,
    deadline_of,
    is_complete,
    make_condition,
    seconds_until_timeout,
    status_of,
)
from konverge.lab.controllers.reconciling import Controller, World, key_of
from konverge.lab.controllers.revisions import (
    REVISION,
    annotate,
    find_new,
    make_replica_set,
    next_revision,
    size_annotations,
    superfluous,
)
from konverge.lab.controllers.rolling import (
    DESIRED,
    new_size,
    replicas_of,
    shrink_old,
    spread,
)
from konverge.lab.controllers.selecting import labels_of, matches


@dataclass(frozen=True, slots=True)
class Rollout:
    """A Deployment with its ReplicaSets; ``new`` is None until its template has one."""

    deployment: Object
    old: tuple[Object, ...]
    new: Object | None
    extra: Condition | None = None

    @property
    def sets(self) -> list[Object]:
        """Every ReplicaSet, the new one last."""
        return [*self.old, self.new] if self.new else list(self.old)


class Deployments(Controller):
    """Reconciles Deployments with their ReplicaSets."""

    name = "deployment-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._deployments = self.watch_own(DEPLOYMENTS)
        self._sets = world.cache(REPLICA_SETS)
        self._sets.subscribe(self._on_set)
        self._pods = world.cache(PODS)
        self._pods.subscribe(self._on_pod)
        self._claiming = Claiming(world.client, DEPLOYMENTS, self._sets)

    def _on_set(self, old: Object | None, new: Object | None) -> None:
        for item in (old, new):
            if item is None:
                continue
            reference = controller_of(item)
            if reference is not None and reference["kind"] == DEPLOYMENTS.kind:
                self.queue.add((item["metadata"]["namespace"], reference["name"]))
            elif reference is None:
                for owner in self._deployments.items(item["metadata"]["namespace"]):
                    if matches(owner["spec"].get("selector"), labels_of(item)):
                        self.queue.add(key_of(owner))

    def _on_pod(self, old: Object | None, new: Object | None) -> None:
        # Recreate waits for the last old pod to be gone; a ReplicaSet's status does not count pods on their way out.
        if new is not None or old is None:
            return
        reference = controller_of(old)
        item = self._sets.get(old["metadata"]["namespace"], reference["name"]) if reference else None
        if item is not None:
            self._on_set(None, item)

    async def reconcile(self, namespace: str, name: str) -> None:
        """Take the next step of the rollout, then write the status."""
        deployment = self._deployments.get(namespace, name)
        if deployment is None:
            return
        children = await self._claiming.claim(deployment, self._sets.items(namespace))
        rollout = self._assemble(deployment, children)
        if deployment["metadata"].get("deletionTimestamp"):
            await self._write_status(rollout)
        elif deployment["spec"].get("paused") or self._is_scaling(rollout):
            await self._keep(rollout)
        elif (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
            await self._recreate(rollout)
        else:
            await self._roll(rollout)

    def _assemble(self, deployment: Object, children: Sequence[Object]) -> Rollout:
        new = find_new(deployment, children)
        old = tuple(item for item in children if item is not new)
        return Rollout(deployment, old, new, self._pausing_condition(deployment))

    def _pausing_condition(self, deployment: Object) -> Condition | None:
        held = find_condition(deployment, "Progressing")
        if deadline_of(deployment) is None or (held and held.get("reason") == TIMED_OUT):
            return None
        paused = bool(deployment["spec"].get("paused"))
        was_paused = held is not None and held.get("reason") == "DeploymentPaused"
        if paused == was_paused:
            return None
        reason = "DeploymentPaused" if paused else "DeploymentResumed"
        text = f"Deployment is {'paused' if paused else 'resumed'}"
        condition = make_condition("Progressing", True, reason, text, now())
        # Unknown, so that the time spent in a pause never counts against the deadline.
        return {**condition, "status": "Unknown"}

    def _is_scaling(self, rollout: Rollout) -> bool:
        wanted = str(replicas_of(rollout.deployment))
        noted = [
            (item["metadata"].get("annotations") or {}).get(DESIRED) for item in rollout.sets if replicas_of(item) > 0
        ]
        return any(value is not None and value != wanted for value in noted)

    async def _keep(self, rollout: Rollout) -> None:
        """Scale without going on with the rollout."""
        if rollout.new is not None:
            rollout = await self._number(rollout)
        rollout = await self._rescale(rollout)
        if rollout.deployment["spec"].get("paused"):
            await self._clean_up(rollout)
        await self._write_status(rollout)

    async def _rescale(self, rollout: Rollout) -> Rollout:
        active = [item for item in rollout.sets if replicas_of(item) > 0]
        sole = active[0] if len(active) == 1 else None if active else self._latest(rollout)
        if sole is not None:
            return await self._apply_sizes(rollout, [(sole, replicas_of(rollout.deployment))])
        if self._is_saturated(rollout):
            return await self._apply_sizes(rollout, [(item, 0) for item in rollout.old])
        strategy = rollout.deployment["spec"].get("strategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return rollout
        return await self._apply_sizes(rollout, spread(rollout.deployment, active))

    def _latest(self, rollout: Rollout) -> Object | None:
        ordered = sorted(rollout.old, key=lambda item: str(item["metadata"].get("creationTimestamp")))
        return rollout.new or (ordered[-1] if ordered else None)

    def _is_saturated(self, rollout: Rollout) -> bool:
        if rollout.new is None:
            return False
        wanted = replicas_of(rollout.deployment)
        noted = (rollout.new["metadata"].get("annotations") or {}).get(DESIRED)
        available = int((rollout.new.get("status") or {}).get("availableReplicas", 0))
        return replicas_of(rollout.new) == wanted == available and noted == str(wanted)

    async def _roll(self, rollout: Rollout) -> None:
        rollout = await self._ensure_new(rollout)
        new = rollout.new
        if new is None:
            return
        size = self._next_size(rollout)
        if size != replicas_of(new):
            rollout = await self._apply_sizes(rollout, [(new, size)])
        else:
            smaller = shrink_old(rollout.deployment, rollout.old, new)
            rollout = await self._apply_sizes(rollout, smaller)
        await self._finish(rollout)

    def _next_size(self, rollout: Rollout) -> int:
        wanted = replicas_of(rollout.deployment)
        if rollout.new is not None and replicas_of(rollout.new) > wanted:
            return wanted
        return new_size(rollout.deployment, rollout.sets, rollout.new)

    async def _recreate(self, rollout: Rollout) -> None:
        running = [item for item in rollout.old if replicas_of(item) > 0]
        if running:
            rollout = await self._apply_sizes(rollout, [(item, 0) for item in running])
            await self._write_status(rollout)
            return
        if self._old_pods_remain(rollout):
            await self._write_status(rollout)
            return
        rollout = await self._ensure_new(rollout)
        if rollout.new is None:
            return
        rollout = await self._apply_sizes(rollout, [(rollout.new, replicas_of(rollout.deployment))])
        await self._finish(rollout)

    def _old_pods_remain(self, rollout: Rollout) -> bool:
        namespace = rollout.deployment["metadata"]["namespace"]
        return any(
            (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
            for pod in self._pods.items(namespace)
            if any(is_controlled_by(pod, item) for item in rollout.old)
        )

    async def _finish(self, rollout: Rollout) -> None:
        if is_complete(rollout.deployment, rollout.deployment.get("status") or {}):
            await self._clean_up(rollout)
        await self._write_status(rollout)

    async def _ensure_new(self, rollout: Rollout) -> Rollout:
        """Create the ReplicaSet of the current template, or number the one that exists."""
        if rollout.new is not None:
            return await self._number(rollout)
        deployment, revision = rollout.deployment, next_revision(rollout.old)
        body = make_replica_set(deployment, new_size(deployment, rollout.old, None), revision)
        new = await self._create_set(deployment, body)
        if new is None:
            return rollout
        deployment = await self._note_revision(deployment, new)
        text = f'Created new replica set "{new["metadata"]["name"]}"'
        created = make_condition("Progressing", True, "NewReplicaSetCreated", text, now())
        return Rollout(deployment, rollout.old, new, created)

    async def _create_set(self, deployment: Object, body: Object) -> Object | None:
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        try:
            new = self._sets.note(await self.client.create(REPLICA_SETS, body))
        except Conflict:
            held = await self.client.find(REPLICA_SETS, name, namespace)
            if held is None:
                raise
            if is_controlled_by(held, deployment) and same_template(
                held["spec"]["template"], deployment["spec"]["template"]
            ):
                return self._sets.note(held)
            await self._count_collision(deployment)
            return None
        size = replicas_of(new)
        if size:
            self.recorder.emit(deployment, "ScalingReplicaSet", f"Scaled up replica set {name} from 0 to {size}")
        return new

    async def _count_collision(self, deployment: Object) -> None:
        status = dict(deployment.get("status") or {})
        status["collisionCount"] = int(status.get("collisionCount", 0)) + 1
        body = {**deployment, "status": status}
        self._deployments.note(await self.client.replace(DEPLOYMENTS, body, "status"))

    async def _number(self, rollout: Rollout) -> Rollout:
        """Give the new ReplicaSet the highest revision and the Deployment's annotations."""
        new = rollout.new
        if new is None:
            return rollout
        held = new["metadata"].get("annotations") or {}
        wanted = annotate(rollout.deployment, held, next_revision(rollout.old))
        seconds = int(rollout.deployment["spec"].get("minReadySeconds", 0))
        if wanted != held or int(new["spec"].get("minReadySeconds", 0)) != seconds:
            body = {
                **new,
                "metadata": {**new["metadata"], "annotations": wanted},
                "spec": {**new["spec"], "minReadySeconds": seconds},
            }
            new = self._sets.note(await self.client.replace(REPLICA_SETS, body))
        deployment = await self._note_revision(rollout.deployment, new)
        return Rollout(deployment, rollout.old, new, rollout.extra or self._found_condition(deployment, new))

    def _found_condition(self, deployment: Object, new: Object) -> Condition | None:
        if deadline_of(deployment) is None or find_condition(deployment, "Progressing") is not None:
            return None
        text = f'Found new replica set "{new["metadata"]["name"]}"'
        return make_condition("Progressing", True, "FoundNewReplicaSet", text, now())

    async def _note_revision(self, deployment: Object, new: Object) -> Object:
        revision = (new["metadata"].get("annotations") or {}).get(REVISION)
        metadata = deployment["metadata"]
        if (metadata.get("annotations") or {}).get(REVISION) == revision:
            return deployment
        patch = {"metadata": {"annotations": {REVISION: revision}}}
        changed = await self.client.patch(DEPLOYMENTS, metadata["name"], patch, metadata["namespace"])
        return self._deployments.note(changed)

    async def _apply_sizes(self, rollout: Rollout, sizes: Sequence[tuple[Object, int]]) -> Rollout:
        changed = {}
        for item, size in sizes:
            changed[item["metadata"]["uid"]] = await self._scale(rollout.deployment, item, size)
        old = tuple(changed.get(item["metadata"]["uid"], item) for item in rollout.old)
        new = changed.get(rollout.new["metadata"]["uid"], rollout.new) if rollout.new else None
        return Rollout(rollout.deployment, old, new, rollout.extra)

    async def _scale(self, deployment: Object, item: Object, size: int) -> Object:
        before = replicas_of(item)
        held = item["metadata"].get("annotations") or {}
        annotations = {**held, **size_annotations(deployment)}
        if before == size and annotations == held:
            return item
        body = {
            **item,
            "metadata": {**item["metadata"], "annotations": annotations},
            "spec": {**item["spec"], "replicas": size},
        }
        changed = self._sets.note(await self.client.replace(REPLICA_SETS, body))
        if before != size:
            verb = "up" if size > before else "down"
            text = f"Scaled {verb} replica set {item['metadata']['name']} from {before} to {size}"
            self.recorder.emit(deployment, "ScalingReplicaSet", text)
        return changed

    async def _clean_up(self, rollout: Rollout) -> None:
        for item in superfluous(rollout.deployment, rollout.old):
            metadata = item["metadata"]
            await self.client.delete(REPLICA_SETS, metadata["name"], metadata["namespace"])

    async def _write_status(self, rollout: Rollout) -> None:
        deployment, moment = rollout.deployment, now()
        status = status_of(deployment, rollout.sets, rollout.new, moment, rollout.extra)
        left = seconds_until_timeout({**deployment, "status": status}, moment)
        if left is not None:
            self.queue.add_after(key_of(deployment), max(left, 0) + 1.0)
        if status == (deployment.get("status") or {}):
            return
        try:
            body = {**deployment, "status": status}
            self._deployments.note(await self.client.replace(DEPLOYMENTS, body, "status"))
        except NotFound:
            return
