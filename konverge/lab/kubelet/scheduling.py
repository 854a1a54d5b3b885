"""A scheduler small enough for a lab: binds pods without a node, tells why one stays Pending."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from konverge.errors import Conflict, KonvergeError, NotFound
from konverge.kube.client import KubeClient
from konverge.kube.resources import PODS
from konverge.lab.kubelet.caching import Mirror, key_of
from konverge.lab.kubelet.placing import choose_node
from konverge.lab.kubelet.recording import Recorder, timestamp

Object = dict[str, Any]
RETRY = 5.0
"""Seconds after which pods that fit nowhere are tried again, changes or not."""
log = logging.getLogger(__name__)


class Scheduler:
    """Binds pods one after the other, oldest first, in the name of ``default-scheduler``."""

    def __init__(self, client: KubeClient, pods: Mirror, nodes: Mirror, names: tuple[str, ...], recorder: Recorder):
        self._client = client
        self._pods, self._nodes, self._names = pods, nodes, names
        self._recorder = recorder
        self._changed = asyncio.Event()
        self._assumed: dict[str, str] = {}
        """Node by uid of pods that were bound but are not seen bound yet."""

    async def run(self) -> None:
        """Schedule until cancelled."""
        for mirror in (self._pods, self._nodes):
            mirror.listen(self._notice)
            await mirror.synced.wait()
        while True:
            self._changed.clear()
            for pod in self._waiting():
                await self._schedule(pod)
            try:
                await asyncio.wait_for(self._changed.wait(), RETRY)
            except TimeoutError:
                continue

    def _notice(self, before: Object | None, after: Object | None) -> None:
        item = after or before or {}
        kind = item.get("kind")
        if kind != "Pod" or after is None or not after["spec"].get("nodeName"):
            self._changed.set()
        if kind == "Pod" and (after is None or after["spec"].get("nodeName")):
            self._assumed.pop(str(item["metadata"]["uid"]), None)

    def _waiting(self) -> list[Object]:
        pods = [pod for pod in self._pods.objects.values() if self._is_waiting(pod)]
        return sorted(pods, key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), key_of(pod)))

    def _is_waiting(self, pod: Object) -> bool:
        spec, metadata = pod["spec"], pod["metadata"]
        return (
            not spec.get("nodeName")
            and not metadata.get("deletionTimestamp")
            and not spec.get("schedulingGates")
            and spec.get("schedulerName", "default-scheduler") == "default-scheduler"
            and metadata["uid"] not in self._assumed
        )

    async def _schedule(self, pod: Object) -> None:
        nodes = [node for (_, name), node in self._nodes.objects.items() if name in self._names]
        node, problem = choose_node(pod, nodes, self._placed())
        try:
            if node:
                await self._bind(pod, node)
            else:
                await self._refuse(pod, problem)
        except (NotFound, Conflict):
            return  # deleted or bound by somebody else meanwhile
        except KonvergeError as error:
            log.debug("%s is not scheduled: %s", pod["metadata"]["name"], error)

    def _placed(self) -> list[Object]:
        return [
            {**pod, "spec": {**pod["spec"], "nodeName": self._assumed[pod["metadata"]["uid"]]}}
            if pod["metadata"]["uid"] in self._assumed
            else pod
            for pod in self._pods.objects.values()
        ]

    async def _bind(self, pod: Object, node: str) -> None:
        metadata = pod["metadata"]
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        path = PODS.path(str(metadata["namespace"]), str(metadata["name"]), "binding")
        self._assumed[metadata["uid"]] = node
        try:
            await self._client.request("POST", path, body=body)
        except KonvergeError:
            self._assumed.pop(metadata["uid"], None)
            raise
        text = f"Successfully assigned {metadata['namespace']}/{metadata['name']} to {node}"
        self._recorder.record(pod, "Scheduled", text)

    async def _refuse(self, pod: Object, problem: str) -> None:
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": problem,
            "lastTransitionTime": timestamp(),
        }
        told: Object = next(
            (item for item in pod.get("status", {}).get("conditions") or () if item["type"] == "PodScheduled"),
            {},
        )
        if told.get("message") == problem:
            return
        self._recorder.record(pod, "FailedScheduling", problem, kind="Warning")
        metadata = pod["metadata"]
        await self._client.patch(
            PODS,
            str(metadata["name"]),
            {"metadata": {"uid": metadata["uid"]}, "status": {"conditions": [condition]}},
            str(metadata["namespace"]),
            kind="strategic",
            subresource="status",
        )
