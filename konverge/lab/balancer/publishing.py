"""Says on a Service where it really listens when a port below 1024 could not be bound."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping

from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.resources import SERVICES, Object
from konverge.lab.balancer.tables import Address

ADDRESSES = "lab.konverge.dev/addresses"
"""Annotation: a JSON object from the wanted ``IP:port`` to the bound one."""


class Publisher:
    """Writes the annotation in the background; a failed write is tried again at the next sync."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._tasks: set[asyncio.Task[None]] = set()

    def publish(self, services: Iterable[Object], moved: Mapping[Address, Address]) -> None:
        """Annotate the Services whose load balancer ports had to move."""
        if not moved:
            return
        for service in services:
            value = moved_ports(service, moved)
            held = (service["metadata"].get("annotations") or {}).get(ADDRESSES)
            if value and value != held:
                task = asyncio.create_task(self._write(service, value))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Give up the writes under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _write(self, service: Object, value: str) -> None:
        metadata = service["metadata"]
        patch = {"metadata": {"annotations": {ADDRESSES: value}}}
        try:
            await self._client.patch(SERVICES, metadata["name"], patch, metadata["namespace"])
        except KonvergeError:
            return


def moved_ports(service: Object, moved: Mapping[Address, Address]) -> str | None:
    """Return the annotation's value for a Service, or None where nothing of it moved."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    found = {}
    for entry in ingress:
        for port in service["spec"].get("ports") or ():
            wanted = (entry.get("ip", ""), port["port"])
            if wanted in moved:
                found[f"{wanted[0]}:{wanted[1]}"] = f"{moved[wanted][0]}:{moved[wanted][1]}"
    return json.dumps(found, sort_keys=True) if found else None
