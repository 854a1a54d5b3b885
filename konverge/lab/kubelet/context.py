"""What every part of the kubelet needs of the others: client, copies, launcher, addresses, events."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from konverge.kube.client import KubeClient
from konverge.kube.resources import CONFIG_MAPS, PODS, SECRETS, SERVICES, Object
from konverge.lab.kubelet.addresses import AddressPool
from konverge.lab.kubelet.caching import Mirror
from konverge.lab.kubelet.processes import Launcher
from konverge.lab.kubelet.recording import Recorder
from konverge.lab.kubelet.settings import KubeletSettings

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Mirrors:
    """Copies of the kinds that a kubelet reads: one watch per kind, whatever the number of pods."""

    pods: Mirror
    secrets: Mirror
    config_maps: Mirror
    services: Mirror

    @classmethod
    def build(cls, client: KubeClient) -> Mirrors:
        """Make the copies; they fill once :meth:`Mirror.run` runs."""
        return cls(*(Mirror(client, resource) for resource in (PODS, SECRETS, CONFIG_MAPS, SERVICES)))

    def all(self) -> tuple[Mirror, ...]:
        """Return every copy."""
        return self.pods, self.secrets, self.config_maps, self.services


@dataclass(slots=True)
class Context:
    """The kubelet's shared parts."""

    settings: KubeletSettings
    client: KubeClient
    mirrors: Mirrors
    launcher: Launcher
    addresses: AddressPool
    recorder: Recorder
    http: aiohttp.ClientSession
    """For probes and HTTP hooks: no certificate checks, no kept connections, as the kubelet's prober."""

    def secret(self, namespace: str, name: str) -> Object | None:
        """Return the copy of a Secret."""
        return self.mirrors.secrets.get(namespace, name)

    def config_map(self, namespace: str, name: str) -> Object | None:
        """Return the copy of a ConfigMap."""
        return self.mirrors.config_maps.get(namespace, name)

    def path(self, *parts: str) -> Path:
        """Return a path below the kubelet's directory."""
        return self.settings.directory.joinpath(*parts)

    def project_delay(self) -> float:
        """Return the seconds until a change of an object shows in volumes."""
        return self.settings.delays.project * random.uniform(0.75, 1.25)

    def emit(self, pod: Object, reason: str, message: str, *, container: str = "", warning: bool = False) -> None:
        """Record an Event on a pod or on one of its containers."""
        self.recorder.record(
            pod,
            reason,
            message,
            kind="Warning" if warning else "Normal",
            field=f"spec.containers{{{container}}}" if container else "",
            host=str(pod["spec"].get("nodeName", "")),
        )


class TaskSet:
    """Background tasks that end together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def add(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start ``work`` in the background."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("A background task of the kubelet failed.", exc_info=task.exception())

    async def cancel(self) -> None:
        """Cancel what still runs and wait for it."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
