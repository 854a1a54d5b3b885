"""The kubelet as a whole: copies of the API, nodes, scheduler, pods and the server."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from konverge.kube.client import KubeClient, wait_until_reachable
from konverge.kube.resources import NODES
from konverge.lab.kubelet import tracking
from konverge.lab.kubelet.access import write_commands
from konverge.lab.kubelet.addresses import AddressPool
from konverge.lab.kubelet.caching import Mirror
from konverge.lab.kubelet.certificates import make_authority, server_context
from konverge.lab.kubelet.context import Context, Mirrors, TaskSet
from konverge.lab.kubelet.forking import ForkingLauncher
from konverge.lab.kubelet.lifecycle import PodWorker
from konverge.lab.kubelet.logs import prune_pods
from konverge.lab.kubelet.nodes import keep_node, mark_down
from konverge.lab.kubelet.processes import DirectLauncher, Launcher, kill_all
from konverge.lab.kubelet.recording import Recorder
from konverge.lab.kubelet.scheduling import Scheduler
from konverge.lab.kubelet.serving import KubeletServer
from konverge.lab.kubelet.settings import KubeletSettings

Object = dict[str, Any]
REACH_TIMEOUT = 60.0
"""Seconds that the API server may take to answer at first."""
MARK_TIMEOUT = 1.0
log = logging.getLogger(__name__)


class Kubelet:
    """Runs the pods of its nodes; an async context manager. ``ready`` once nodes are registered and it serves."""

    def __init__(self, settings: KubeletSettings, client: KubeClient | None = None) -> None:
        self.settings = settings
        self.workers: dict[str, PodWorker] = {}
        self._client = client
        self._launcher: Launcher = ForkingLauncher() if settings.zygote else DirectLauncher()
        self._http: aiohttp.ClientSession | None = None
        self._tasks = TaskSet()
        self._pods = TaskSet()
        self._server = KubeletServer(self.workers, settings.address, settings.nodes)
        self._context: Context | None = None
        self.ready = asyncio.Event()

    @property
    def port(self) -> int:
        """The port of the HTTPS server."""
        return self._server.port

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Clean up after a kubelet before this one, then register, serve and run pods."""
        await asyncio.to_thread(self._prepare_directory)
        if self._client is None:
            self._client = await KubeClient.connect(self.settings.kubeconfig)
        client = self._client
        if isinstance(self._launcher, ForkingLauncher):
            self._tasks.add(self._launcher.prepare())
        await wait_until_reachable(client, REACH_TIMEOUT)
        await self._serve()
        self._context = context = self._build_context(client)
        for mirror in context.mirrors.all():
            self._tasks.add(mirror.run())
        self._tasks.add(context.recorder.run())
        for mirror in context.mirrors.all():
            await mirror.synced.wait()
        await asyncio.to_thread(self._remove_old_pods)
        await self._register(client)
        context.mirrors.pods.listen(self._on_pod)
        for pod in list(context.mirrors.pods.objects.values()):
            self._on_pod(None, pod)
        if self.settings.schedule:
            self._start_scheduler(client, context)
        self.ready.set()

    def _prepare_directory(self) -> None:
        directory = self.settings.directory
        directory.mkdir(parents=True, exist_ok=True)
        killed = tracking.kill_orphans(directory / "pids")
        if killed:
            log.warning("Killed %d processes that an earlier kubelet left behind.", len(killed))
        write_commands(directory / "bin", sys.executable)

    def _build_context(self, client: KubeClient) -> Context:
        settings = self.settings
        connector = aiohttp.TCPConnector(ssl=False, force_close=True, limit=0)
        self._http = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return Context(
            settings=settings,
            client=client,
            mirrors=Mirrors.build(client),
            launcher=self._launcher,
            addresses=AddressPool(settings.pod_cidr, settings.loopbacks()),
            recorder=Recorder(client, "kubelet"),
            http=self._http,
        )

    async def _serve(self) -> None:
        settings = self.settings
        if settings.ca_certificate and settings.ca_key:
            certificate, key = settings.ca_certificate, settings.ca_key
        else:
            certificate, key = await asyncio.to_thread(make_authority, settings.directory)
        tls = settings.directory / "tls"
        context = await asyncio.to_thread(server_context, tls, certificate, key, settings.address, settings.nodes)
        await self._server.start(settings.port, context)
        self.settings = replace(settings, port=self._server.port)

    async def _register(self, client: KubeClient) -> None:
        registered = []
        for name in self.settings.nodes:
            event = asyncio.Event()
            registered.append(event.wait())
            self._tasks.add(keep_node(client, self.settings, name, event))
        async with asyncio.timeout(REACH_TIMEOUT):
            await asyncio.gather(*registered)

    def _remove_old_pods(self) -> None:
        """Delete the directories of pods that are gone from the API."""
        assert self._context is not None
        known = {pod["metadata"]["uid"] for pod in self._context.mirrors.pods.objects.values()}
        for path in self.settings.directory.glob("pods/*"):
            if path.name not in known:
                shutil.rmtree(path, ignore_errors=True)

    def _start_scheduler(self, client: KubeClient, context: Context) -> None:
        nodes = Mirror(client, NODES)
        recorder = Recorder(client, "default-scheduler")
        scheduler = Scheduler(client, context.mirrors.pods, nodes, self.settings.nodes, recorder)
        for work in (nodes.run(), recorder.run(), scheduler.run()):
            self._tasks.add(work)

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        uid = str((after or before or {})["metadata"]["uid"])
        if before is not None and before["metadata"]["uid"] != uid:
            self._vanish(str(before["metadata"]["uid"]))  # replaced under the same name between two lists
        if after is None:
            self._vanish(uid)
        elif uid in self.workers:
            self.workers[uid].update(after)
        elif after["spec"].get("nodeName") in self.settings.nodes:
            self._begin(uid, after)

    def _vanish(self, uid: str) -> None:
        worker = self.workers.get(uid)
        if worker is not None:
            worker.vanish()

    def _begin(self, uid: str, pod: Object) -> None:
        assert self._context is not None
        worker = self.workers[uid] = PodWorker(self._context, pod)
        self._pods.add(self._live(uid, worker))

    async def _live(self, uid: str, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:
            log.exception("The pod %s is lost to an error of the lab.", worker.sandbox.label)
        finally:
            self.workers.pop(uid, None)
        await asyncio.to_thread(prune_pods, self.log_path(), set(self.workers))

    async def stop(self) -> None:
        """End every pod at once and everything else; the pods stay in the API, as when a node dies."""
        kill_all(process for worker in self.workers.values() for process in worker.processes())
        await self._pods.cancel()
        await self._server.stop()
        await self._tasks.cancel()
        await self._launcher.close()
        if self._http is not None:
            await self._http.close()
        if self._client is not None:
            if self.ready.is_set():
                await self._mark_down(self._client)
            await self._client.close()

    async def _mark_down(self, client: KubeClient) -> None:
        try:
            async with asyncio.timeout(MARK_TIMEOUT):
                for name in self.settings.nodes:
                    await mark_down(client, name)
        except TimeoutError:
            log.debug("The API server does not take the nodes' last status.")

    def log_path(self) -> Path:
        """Return where the logs of containers are."""
        return self.settings.directory / "logs"
