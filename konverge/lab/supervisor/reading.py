"""Logs of a lab's components and pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from konverge.errors import NotFound, UsageError
from konverge.kube.client import REQUEST_TIMEOUT, KubeClient, map_status
from konverge.kube.resources import PODS, Object
from konverge.lab.supervisor.states import LabState

POLL_SECONDS = 0.2
"""Files cannot be awaited with the standard library."""


async def read_logs(state: LabState, what: str, *, follow: bool, container: str = "") -> AsyncIterator[bytes]:
    """Yield the log of a component, or of a pod named ``[namespace/]name``."""
    for component in state.components:
        if component.name == what:
            async for chunk in read_file(component.log, follow=follow):
                yield chunk
            return
    async with await KubeClient.connect(state.kubeconfig) as client:
        pod = await find_pod(client, what, [component.name for component in state.components])
        async for chunk in read_pod(client, pod, container or default_container(pod), follow=follow):
            yield chunk


async def read_file(path: Path, *, follow: bool) -> AsyncIterator[bytes]:
    """Yield a file's content, and for ever what is added to it where ``follow`` is set."""
    with await asyncio.to_thread(path.open, "rb") as log:
        while True:
            chunk = await asyncio.to_thread(log.read, 65536)
            if chunk:
                yield chunk
            elif not follow:
                return
            else:
                await asyncio.sleep(POLL_SECONDS)


async def find_pod(client: KubeClient, what: str, components: list[str]) -> Object:
    """Return the one pod of that name; a prefix will do where it is unique."""
    namespace, _, name = what.rpartition("/")
    pods = await client.list_all(PODS, namespace or None)
    exact = [pod for pod in pods if pod["metadata"]["name"] == name]
    found = exact or [pod for pod in pods if pod["metadata"]["name"].startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(sorted(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in found))
        raise UsageError(f"More than one pod is named {what}: {names}", hint="howto/lab.md#logs")
    raise NotFound(
        f"The lab has no component and no pod named {what}; its components are {', '.join(components)}.",
        reason="NoSuchLog",
        hint="howto/lab.md#logs",
    )


def default_container(pod: Object) -> str:
    """Return the pod's first container."""
    return str(pod["spec"]["containers"][0]["name"])


async def read_pod(client: KubeClient, pod: Object, container: str, *, follow: bool) -> AsyncIterator[bytes]:
    """Yield a container's log from the API server."""
    path = PODS.path(pod["metadata"]["namespace"], pod["metadata"]["name"], "log")
    timeout = aiohttp.ClientTimeout(total=None if follow else REQUEST_TIMEOUT, sock_connect=REQUEST_TIMEOUT)
    query = {"container": container, "follow": "true" if follow else "false"}
    async with client.session().get(
        client.server + path, params=query, headers=await client.headers(), timeout=timeout
    ) as response:
        if response.status >= 300:
            raise map_status(response.status, await response.read(), f"GET {path}")
        async for chunk in response.content.iter_any():
            yield chunk
