"""Kubernetes Events about what the controllers did; losing one is never an error."""

from __future__ import annotations

import asyncio
import secrets

from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.resources import EVENTS, Object
from konverge.lab.controllers.conditions import format_time, now

IN_FLIGHT = 64
"""Events being written at one time; more are dropped, as an overloaded kube-controller-manager does."""


class Recorder:
    """Writes Events in the background under one component's name."""

    def __init__(self, client: KubeClient, component: str) -> None:
        self._client = client
        self._component = component
        self._tasks: set[asyncio.Task[None]] = set()

    def emit(self, item: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Record an Event on an object."""
        if len(self._tasks) >= IN_FLIGHT:
            return
        task = asyncio.create_task(self._write(self._event(item, reason, message, warning)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _event(self, item: Object, reason: str, message: str, warning: bool) -> Object:
        metadata = item["metadata"]
        moment = format_time(now())
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name'][:230]}.{secrets.token_hex(8)}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": {
                "apiVersion": item.get("apiVersion"),
                "kind": item.get("kind"),
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion"),
            },
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }

    async def _write(self, event: Object) -> None:
        try:
            await self._client.create(EVENTS, event)
        except KonvergeError:
            return
