"""The life of one pod on this node, from its binding to its removal from the API."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from konverge.errors import Conflict, KonvergeError, NotFound
from konverge.kube.resources import PODS
from konverge.lab.kubelet.addresses import PodAddress
from konverge.lab.kubelet.containers import Container
from konverge.lab.kubelet.context import Context, TaskSet
from konverge.lab.kubelet.processes import Process
from konverge.lab.kubelet.recording import timestamp
from konverge.lab.kubelet.sandbox import Sandbox
from konverge.lab.kubelet.states import PodFacts, pod_status
from konverge.lab.kubelet.volumes import PodVolumes

Object = dict[str, Any]
FIRST_PAUSE, LAST_PAUSE = 0.1, 5.0
"""Seconds between attempts to write status or to remove the pod while the API server does not take it."""
FORCED_GRACE = 1.0
"""Seconds that containers of a force-deleted pod get: the kubelet knows no shorter grace."""
log = logging.getLogger(__name__)


class PodWorker:
    """Brings a pod up, keeps its status told, and takes it down when it is deleted."""

    def __init__(self, context: Context, pod: Object) -> None:
        self._context = context
        address = _acquire_address(context, pod)
        volumes = PodVolumes(context, pod, address.ip)
        self.sandbox = Sandbox(context, pod, address, volumes, self._notice)
        spec = pod["spec"]
        self.init = [Container(self.sandbox, item, init=True) for item in spec.get("initContainers") or ()]
        self.containers = [Container(self.sandbox, item) for item in spec["containers"]]
        for container in (*self.init[1:], *(self.containers if self.init else ())):
            container.record.reason = "PodInitializing"
        self._resume(pod)
        self._tasks = TaskSet()
        self._runs: dict[str, asyncio.Task[int]] = {}
        self._dirty = asyncio.Event()
        self._dirty.set()
        self._deleted = asyncio.Event()
        self._gone = False
        self._ending = False
        self._initialized = False
        self._finished = False
        self._start_time = str(pod.get("status", {}).get("startTime") or timestamp())
        self._published: Object = {}

    def _resume(self, pod: Object) -> None:
        status = pod.get("status", {})
        told = (status.get("initContainerStatuses") or []) + (status.get("containerStatuses") or [])
        by_name = {item["name"]: item for item in told}
        for container in (*self.init, *self.containers):
            if container.name in by_name and by_name[container.name].get("state"):
                container.resume(by_name[container.name])

    def find(self, name: str) -> Container:
        """Return a container by name, the first one for ""; NotFound where there is none."""
        every = [*self.containers, *self.init]
        found = [item for item in every if item.name == name] if name else every
        if not found:
            raise NotFound(f"container {name} not found in pod {self.sandbox.label}", reason="NoSuchContainer")
        return found[0]

    def update(self, pod: Object) -> None:
        """Take a newer version of the pod."""
        if not self._accept(pod):
            return
        if self._published and not _tells(pod.get("status") or {}, self._published):
            self._published = {}  # somebody else has written what is ours
        self.sandbox.volumes.update(pod)
        for container, spec in zip(self.containers, pod["spec"]["containers"], strict=False):
            container.replace_spec(spec)
        if pod["metadata"].get("deletionTimestamp"):
            self._deleted.set()
        self._dirty.set()

    def vanish(self) -> None:
        """Note that the object is gone from the API: what runs must end soon."""
        self._gone = True
        self._deleted.set()

    def _accept(self, pod: Object) -> bool:
        """Keep a version unless a newer one is known: a patch's answer may overtake the watch."""
        if _version(pod) < _version(self.sandbox.pod):
            return False
        self.sandbox.pod = pod
        return True

    def _notice(self) -> None:
        self._dirty.set()

    async def run(self) -> None:
        """Live until the pod is gone."""
        publishing = asyncio.create_task(self._publish_changes())
        living = asyncio.create_task(self._live())
        living.add_done_callback(self._report_failure)
        deleted = asyncio.create_task(self._deleted.wait())
        if self.sandbox.pod["metadata"].get("deletionTimestamp"):
            self._deleted.set()
        try:
            await deleted
            await self._take_down(living)
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            self._finished = True
            await self._remove()
            await self.sandbox.volumes.tear_down(remove=True)
        finally:
            for task in (publishing, living, deleted):
                task.cancel()
            await asyncio.gather(publishing, living, deleted, return_exceptions=True)
            await self._abandon()

    async def _live(self) -> None:
        phase = self.sandbox.pod.get("status", {}).get("phase")
        if phase in ("Succeeded", "Failed"):
            return  # it has run its course under a kubelet before this one
        await self.sandbox.volumes.set_up()
        if not await self._initialize():
            self._finish()
            return
        for container in self.containers:
            self._start(container)
        await asyncio.gather(*(self._runs[item.name] for item in self.containers))
        await asyncio.gather(*(item.stop(self._spec_grace()) for item in self.init if item.sidecar))
        self._finish()

    def _report_failure(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("The pod %s cannot run.", self.sandbox.label, exc_info=error)
            self._context.emit(self.sandbox.pod, "FailedSync", f"error syncing the pod: {error}", warning=True)

    def _start(self, container: Container) -> asyncio.Task[int]:
        task = self._runs[container.name] = self._tasks.add(container.run())
        return task

    async def _initialize(self) -> bool:
        """Run init containers in order; return whether the pod may go on."""
        for container in self.init:
            task = self._start(container)
            if container.sidecar:
                started = asyncio.create_task(container.started.wait())
                await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
                started.cancel()
            elif await task != 0:
                return False
            if self._ending:
                return False
        self._initialized = True
        for container in self.containers:
            container.record.reason = "ContainerCreating"
        self._dirty.set()
        return True

    def _finish(self) -> None:
        if not self._ending:
            self._finished = True
            self._dirty.set()

    # Taking down

    async def _take_down(self, living: asyncio.Task[None]) -> None:
        """End all containers; a shorter grace period that comes meanwhile counts."""
        self._ending = True
        for group in (self.containers, self.init):
            stops = [asyncio.create_task(self._stop(item)) for item in group]
            if stops:
                await asyncio.wait(stops)
            for task in stops:
                task.result()
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)
        await self._tasks.cancel()
        if not self._gone:
            await asyncio.sleep(self._context.settings.delays.terminate)

    async def _stop(self, container: Container) -> None:
        stopping = asyncio.create_task(container.stop(self._grace()))
        run = self._runs.get(container.name)
        while not stopping.done():
            self._deleted.clear()
            again = asyncio.create_task(self._deleted.wait())
            await asyncio.wait({stopping, again}, return_when=asyncio.FIRST_COMPLETED)
            again.cancel()
            if not stopping.done():
                self._tasks.add(container.stop(self._grace()))
        await stopping
        if run is not None:
            if not container.active:
                run.cancel()  # it waits for an image, a Secret or the end of a back-off
            await asyncio.wait({run})

    def _grace(self) -> float:
        metadata = self.sandbox.pod["metadata"]
        grace = metadata.get("deletionGracePeriodSeconds")
        if self._gone:
            return FORCED_GRACE
        return max(float(self._spec_grace() if grace is None else grace), FORCED_GRACE)

    def _spec_grace(self) -> float:
        return float(self.sandbox.pod["spec"].get("terminationGracePeriodSeconds", 30))

    async def _remove(self) -> None:
        """Tell the last status and let the API server drop the object."""
        pause = FIRST_PAUSE
        metadata = self.sandbox.pod["metadata"]
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        while not self._gone:
            try:
                await self._publish()
                path = PODS.path(str(metadata["namespace"]), str(metadata["name"]))
                await self._context.client.request("DELETE", path, body=body)
                return
            except (NotFound, Conflict):
                return
            except KonvergeError as error:
                log.debug("%s is not removed yet: %s", self.sandbox.label, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)

    async def _abandon(self) -> None:
        for container in (*self.containers, *self.init):
            await container.abandon()
        await self._tasks.cancel()
        await self.sandbox.volumes.tear_down(remove=False)
        if self.sandbox.address.number >= 0:
            self._context.addresses.release(self.sandbox.address)

    def processes(self) -> list[Process]:
        """Return every process of the pod, those run by exec included."""
        every = [*self.containers, *self.init]
        started = [item.process for item in every if item.process is not None]
        return started + [process for item in every for process in item.companions]

    # Telling

    async def _publish_changes(self) -> None:
        pause = FIRST_PAUSE
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._publish()
                pause = FIRST_PAUSE
            except (NotFound, Conflict):
                continue  # gone, or another pod of the same name: the watch will tell
            except KonvergeError as error:
                log.debug("the status of %s is not told yet: %s", self.sandbox.label, error)
                self._dirty.set()
                await asyncio.sleep(pause)
                pause = min(2 * pause, LAST_PAUSE)

    async def _publish(self) -> None:
        status = pod_status(self._facts())
        if status == self._published:
            return
        metadata = self.sandbox.pod["metadata"]
        patch = {"metadata": {"uid": metadata["uid"]}, "status": status}
        answer = await self._context.client.patch(
            PODS,
            str(metadata["name"]),
            patch,
            str(metadata["namespace"]),
            kind="strategic",
            subresource="status",
        )
        self._published = status
        self._accept(answer)

    def _facts(self) -> PodFacts:
        return PodFacts(
            pod=self.sandbox.pod,
            init=[item.record for item in self.init],
            containers=[item.record for item in self.containers],
            now=timestamp(),
            start_time=self._start_time,
            host_ip=self._context.settings.address,
            pod_ip=self.sandbox.address.ip,
            initialized=self._initialized,
            finished=self._finished,
        )


def _acquire_address(context: Context, pod: Object) -> PodAddress:
    if pod["spec"].get("hostNetwork"):
        return PodAddress(-1, context.settings.address, context.settings.address)
    return context.addresses.acquire(str(pod.get("status", {}).get("podIP") or ""))


def _tells(status: Object, ours: Object) -> bool:
    """Return whether a pod's status still says what we wrote, as far as others act on it: phase and conditions."""
    theirs = {item["type"]: item["status"] for item in status.get("conditions") or ()}
    same = all(theirs.get(item["type"]) == item["status"] for item in ours["conditions"])
    return same and status.get("phase") == ours["phase"]


def _version(pod: Object) -> int:
    version = str(pod["metadata"].get("resourceVersion") or "0")
    return int(version) if version.isdigit() else 0
