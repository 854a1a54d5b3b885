"""Waits for what a controller does, by watching and not by sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from konverge.kube.client import KubeClient
from konverge.kube.resources import Object, Resource

DEADLINE = 30.0


async def wait_for(
    client: KubeClient,
    resource: Resource,
    namespace: str,
    condition: Callable[[list[Object]], bool],
    labels: str = "",
) -> list[Object]:
    """Return the objects of a kind once ``condition`` holds for all of them together."""
    async with asyncio.timeout(DEADLINE):
        items, version = await client.list_at(resource, namespace, labels=labels)
        known = {item["metadata"]["name"]: item for item in items}
        while not condition(list(known.values())):
            async for kind, item in client.watch(resource, namespace, version=version, labels=labels):
                version = item["metadata"]["resourceVersion"]
                if kind == "DELETED":
                    known.pop(item["metadata"]["name"], None)
                elif kind != "BOOKMARK":
                    known[item["metadata"]["name"]] = item
                if condition(list(known.values())):
                    break
        return list(known.values())
