"""EndpointSlices of Services with selectors."""

from __future__ import annotations

from konverge.errors import NotFound
from konverge.kube.resources import ENDPOINT_SLICES, PODS, SERVICES, Object
from konverge.lab.controllers.conditions import pod_is_ready
from konverge.lab.controllers.endpoints import group_by_ports, has_slices, select_pods
from konverge.lab.controllers.reconciling import Controller, World, key_of
from konverge.lab.controllers.selecting import includes, labels_of
from konverge.lab.controllers.slicing import CONTROLLER, MANAGED_BY, SERVICE_NAME, SlicePlan, plan_slices


class EndpointSlices(Controller):
    """Keeps the slices of each Service in step with its pods."""

    name = "endpointslice-controller"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._services = self.watch_own(SERVICES)
        self._pods = world.cache(PODS)
        self._pods.subscribe(self._on_pod)
        self._slices = world.cache(ENDPOINT_SLICES)
        self._slices.subscribe(self._on_slice)

    def _on_pod(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and _facts(old) == _facts(new):
            return
        for pod in (old, new):
            if pod is None:
                continue
            for service in self._services.items(pod["metadata"]["namespace"]):
                if includes(service["spec"].get("selector"), labels_of(pod)):
                    self.queue.add(key_of(service))

    def _on_slice(self, old: Object | None, new: Object | None) -> None:
        item = new or old
        if item is not None and _is_ours(item):
            self.queue.add((item["metadata"]["namespace"], labels_of(item)[SERVICE_NAME]))

    async def reconcile(self, namespace: str, name: str) -> None:
        """Write the slices of one Service; those of a deleted Service are the garbage collector's."""
        service = self._services.get(namespace, name)
        if service is None or not has_slices(service) or service["metadata"].get("deletionTimestamp"):
            return
        pods = select_pods(service, self._pods.items(namespace))
        held = [
            item for item in self._slices.items(namespace) if _is_ours(item) and labels_of(item)[SERVICE_NAME] == name
        ]
        await self._carry_out(plan_slices(service, group_by_ports(service, pods), held))

    async def _carry_out(self, plan: SlicePlan) -> None:
        for item in plan.create:
            self._slices.note(await self.client.create(ENDPOINT_SLICES, item))
        for item in plan.update:
            try:
                self._slices.note(await self.client.replace(ENDPOINT_SLICES, item))
            except NotFound:
                self._slices.forget(item)
                raise
        for item in plan.delete:
            metadata = item["metadata"]
            await self.client.delete(ENDPOINT_SLICES, metadata["name"], metadata["namespace"])
            self._slices.forget(item)


def _is_ours(item: Object) -> bool:
    labels = labels_of(item)
    return labels.get(MANAGED_BY) == CONTROLLER and SERVICE_NAME in labels


def _facts(pod: Object) -> tuple[object, ...]:
    """Return what of a pod an endpoint depends on."""
    status, metadata = pod.get("status") or {}, pod["metadata"]
    return (
        metadata.get("labels"),
        bool(metadata.get("deletionTimestamp")),
        status.get("podIP"),
        status.get("phase"),
        pod_is_ready(pod),
        pod["spec"].get("nodeName"),
        metadata["uid"],
    )
