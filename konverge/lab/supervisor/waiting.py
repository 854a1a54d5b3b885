"""Waits for objects of the lab's cluster: on a watch, not by asking again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from konverge.errors import Unavailable
from konverge.kube.client import KubeClient
from konverge.kube.resources import DEPLOYMENTS, SERVICES, Object, Resource
from konverge.lab.controllers.caching import Cache
from konverge.lab.controllers.rolling import available_of, replicas_of

Check = Callable[[Cache], bool]
Name = Callable[[Cache], str]


async def wait_until(client: KubeClient, resource: Resource, check: Check, timeout: float, name: Name) -> None:
    """Return once ``check`` holds for the objects of a kind; Unavailable (NotReady) after ``timeout`` s.

    ``name`` says what is not ready yet, for the message.
    """
    cache = Cache(client, resource)
    changed = asyncio.Event()
    cache.subscribe(lambda _old, _new: changed.set())
    task = asyncio.create_task(cache.run())
    try:
        async with asyncio.timeout(timeout):
            await cache.synced.wait()
            while not check(cache):
                changed.clear()
                await changed.wait()
    except TimeoutError:
        raise _not_ready(name(cache), timeout) from None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def wait_for_deployments(client: KubeClient, timeout: float, namespace: str | None = None) -> None:
    """Return once every Deployment (of a namespace) has rolled out."""

    def check(cache: Cache) -> bool:
        return all(is_rolled_out(item) for item in cache.items(namespace))

    def name(cache: Cache) -> str:
        missing = [item for item in cache.items(namespace) if not is_rolled_out(item)]
        return ", ".join(sorted(map(_describe, missing))) or "Deployments"

    await wait_until(client, DEPLOYMENTS, check, timeout, name)


async def wait_for_deployment(client: KubeClient, namespace: str, name: str, timeout: float) -> None:
    """Return once a Deployment exists and has rolled out."""

    def check(cache: Cache) -> bool:
        item = cache.get(namespace, name)
        return item is not None and is_rolled_out(item)

    await wait_until(client, DEPLOYMENTS, check, timeout, lambda _: f"Deployment {namespace}/{name}")


async def wait_for_address(client: KubeClient, namespace: str, name: str, timeout: float) -> Object:
    """Return a Service once it has the addresses that its type gives it."""
    found: list[Object] = []

    def check(cache: Cache) -> bool:
        item = cache.get(namespace, name)
        if item is None or (item["spec"].get("type") == "LoadBalancer" and not load_balancer_ip(item)):
            return False
        found.append(item)
        return True

    await wait_until(client, SERVICES, check, timeout, lambda _: f"Service {namespace}/{name}")
    return found[-1]


def is_rolled_out(deployment: Object) -> bool:
    """Tell what ``kubectl rollout status`` waits for: all replicas updated, available, and no other left."""
    status = deployment.get("status") or {}
    wanted = replicas_of(deployment)
    return (
        int(status.get("observedGeneration", 0)) >= int(deployment["metadata"].get("generation", 0))
        and int(status.get("updatedReplicas", 0)) == wanted
        and int(status.get("replicas", 0)) == wanted
        and available_of(deployment) == wanted
    )


def _describe(deployment: Object) -> str:
    metadata = deployment["metadata"]
    pods = f"{available_of(deployment)}/{replicas_of(deployment)} pods available"
    return f"Deployment {metadata['namespace']}/{metadata['name']} ({pods})"


def load_balancer_ip(service: Object) -> str | None:
    """Return the first address of the load balancer, or None."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    return str(ingress[0]["ip"]) if ingress and ingress[0].get("ip") else None


def _not_ready(what: str, timeout: float) -> Unavailable:
    return Unavailable(
        f"Not ready after {timeout:.0f} s: {what}",
        reason="NotReady",
        hint="howto/lab.md#when-it-does-not-start",
    )
