"""Puts the legacy topology and the sample applications into a fresh lab."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import orjson

from konverge.errors import Conflict, NotFound
from konverge.kube.client import KubeClient
from konverge.kube.resources import CRDS, NAMESPACES, Object, Resource
from konverge.lab.legacy import kong_crds, legacy_release, sample_applications

LEGACY_RELEASE = "legacy"
LEGACY_NAMESPACE = "kong"
SAMPLE_NAMESPACE = "sample"
CRD_SECONDS = 10.0
IN_FLIGHT = 8


async def furnish(client: KubeClient, *, legacy: int, sample: bool) -> None:
    """Create definitions, the legacy release with ``legacy`` proxies, and the sample applications."""
    if not legacy and not sample:
        return
    await create_all(client, kong_crds())
    objects = []
    if legacy:
        await create_all(client, [_namespace(LEGACY_NAMESPACE)])
        objects += legacy_release(LEGACY_RELEASE, LEGACY_NAMESPACE, legacy)
    if sample:
        await create_all(client, [_namespace(SAMPLE_NAMESPACE)])
        objects += sample_applications(SAMPLE_NAMESPACE)
    await create_all(client, objects)


async def create_all(client: KubeClient, objects: Iterable[Object]) -> None:
    """Create objects, each kind found through discovery; those that exist are left as they are."""
    kinds = Discovery(client)
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def create(item: Object) -> None:
        resource = await kinds.find(item["apiVersion"], item["kind"])
        async with gate:
            try:
                await client.create(resource, item)
            except Conflict as error:
                if error.reason != "AlreadyExists":
                    raise

    async with asyncio.TaskGroup() as group:
        for item in objects:
            group.create_task(create(item))


class Discovery:
    """Finds the resource of a kind; a definition that was just made is waited for."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._known: dict[tuple[str, str], Resource] = {
            (CRDS.api_version, CRDS.kind): CRDS,
            (NAMESPACES.api_version, NAMESPACES.kind): NAMESPACES,
        }
        self._lock = asyncio.Lock()

    async def find(self, api_version: str, kind: str) -> Resource:
        """Return the resource; NotFound where the API server does not come to serve it."""
        key = (api_version, kind)
        async with self._lock, asyncio.timeout(CRD_SECONDS):
            while key not in self._known:
                await self._discover(api_version)
                if key not in self._known:
                    await asyncio.sleep(0.05)
        return self._known[key]

    async def _discover(self, api_version: str) -> None:
        group, _, version = api_version.rpartition("/")
        probe = Resource(group, version, "", "")
        try:
            answer = await self._client.request("GET", probe.path())
        except NotFound:
            return
        for entry in _entries(answer):
            if "/" not in entry["name"]:
                found = Resource(group, version, entry["name"], entry["kind"], bool(entry["namespaced"]))
                self._known[(api_version, entry["kind"])] = found


def _entries(answer: bytes) -> list[Object]:
    return list(orjson.loads(answer).get("resources") or ())


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
