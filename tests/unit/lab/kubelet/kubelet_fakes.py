"""An API server in memory with just what the kubelet calls, so that pods can run without HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson

from konverge.errors import Conflict, NotFound
from konverge.kube.client import KubeClient
from konverge.kube.resources import PODS, Object, Resource


class FakeClient(KubeClient):
    """Objects in dictionaries, watches as queues; patches merge, conditions by type."""

    def __init__(self) -> None:
        self.server = "https://127.0.0.1:1"
        self.namespace = "default"
        self.requests = 0
        self.stores: dict[str, dict[tuple[str, str], Object]] = {}
        self.watchers: dict[str, list[asyncio.Queue[tuple[str, Object]]]] = {}
        self.changed = asyncio.Event()
        self.patches: list[tuple[str, Any]] = []
        self.token = "t0k3n"
        self._versions = itertools.count(1)

    async def close(self) -> None:
        return

    def _store(self, resource: Resource) -> dict[tuple[str, str], Object]:
        return self.stores.setdefault(resource.plural, {})

    def put(self, resource: Resource, item: Object, kind: str = "MODIFIED") -> Object:
        metadata = item["metadata"]
        metadata["resourceVersion"] = str(next(self._versions))
        metadata.setdefault("uid", f"uid-{metadata['resourceVersion']}")
        item.setdefault("kind", resource.kind)
        key = (metadata.get("namespace", ""), metadata["name"])
        self._store(resource)[key] = item
        self._tell(resource, kind, item)
        return item

    def _tell(self, resource: Resource, kind: str, item: Object) -> None:
        for queue in self.watchers.get(resource.plural, []):
            queue.put_nowait((kind, copy.deepcopy(item)))
        self.changed.set()
        self.changed = asyncio.Event()

    def drop(self, resource: Resource, namespace: str, name: str) -> None:
        item = self._store(resource).pop((namespace, name))
        item["metadata"]["resourceVersion"] = str(next(self._versions))
        self._tell(resource, "DELETED", item)

    async def until(self, predicate: Callable[[], Any], timeout: float = 15.0) -> Any:
        """Return the first true value of ``predicate``, asked again after every change."""
        async with asyncio.timeout(timeout):
            while not (value := predicate()):
                await self.changed.wait()
            return value

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        parts = path.strip("/").split("/")
        if path == "/readyz":
            return b"ok"
        if path.endswith("/token"):
            return orjson.dumps({"status": {"token": self.token, "expirationTimestamp": "2099-01-01T00:00:00Z"}})
        if path.endswith("/binding"):
            pod = self._store(PODS)[(parts[3], parts[5])]
            pod["spec"]["nodeName"] = options["body"]["target"]["name"]
            self.put(PODS, pod)
            return b"{}"
        assert method == "DELETE", (method, path)
        with contextlib.suppress(KeyError):
            self.drop(PODS, parts[3], parts[5])
        return b"{}"

    async def find(self, resource: Resource, name: str, namespace: str | None = None) -> Object | None:
        return copy.deepcopy(self._store(resource).get((namespace or "", name)))

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        found = await self.find(resource, name, namespace)
        if found is None:
            raise NotFound(name)
        return found

    async def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        return copy.deepcopy(self.put(resource, copy.deepcopy(body), "ADDED"))

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        kind: str = "merge",
        subresource: str | None = None,
    ) -> Object:
        item = self._store(resource).get((namespace or "", name))
        if item is None:
            raise NotFound(name)
        uid = patch.get("metadata", {}).get("uid")
        if uid and uid != item["metadata"]["uid"]:
            raise Conflict("uid")
        self.patches.append((resource.plural, copy.deepcopy(patch)))
        merge(item, copy.deepcopy(patch))
        return copy.deepcopy(self.put(resource, item))

    async def list_at(
        self, resource: Resource, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        return [copy.deepcopy(item) for item in self._store(resource).values()], "1"

    async def watch(self, resource: Resource, *args: Any, **options: Any) -> AsyncIterator[tuple[str, Object]]:
        queue: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()
        self.watchers.setdefault(resource.plural, []).append(queue)
        for item in self._store(resource).values():
            queue.put_nowait(("MODIFIED", copy.deepcopy(item)))
        try:
            while True:
                yield await queue.get()
        finally:
            self.watchers[resource.plural].remove(queue)

    # Shortcuts of the tests

    def pod(self, name: str, namespace: str = "default") -> Object | None:
        return self._store(PODS).get((namespace, name))

    def phase(self, name: str) -> str:
        return str((self.pod(name) or {}).get("status", {}).get("phase", ""))

    def condition(self, name: str, kind: str) -> Object:
        pod = self.pod(name) or {}
        conditions = pod.get("status", {}).get("conditions") or []
        return next((item for item in conditions if item["type"] == kind), {})

    def container(self, name: str, index: int = 0) -> Object:
        pod = self.pod(name) or {}
        statuses = pod.get("status", {}).get("containerStatuses") or []
        return statuses[index] if len(statuses) > index else {"state": {}}

    def events(self, reason: str) -> list[Object]:
        return [item for item in self.stores.get("events", {}).values() if item["reason"] == reason]

    def delete_pod(self, name: str, grace: int) -> None:
        pod = self.pod(name)
        assert pod is not None
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        pod["metadata"]["deletionGracePeriodSeconds"] = grace
        self.put(PODS, pod)


def merge(target: Object, patch: Object) -> None:
    for key, value in patch.items():
        if key == "conditions":
            merge_conditions(target.setdefault("conditions", []), value)
        elif value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = value


def merge_conditions(target: list[Object], patch: list[Object]) -> None:
    for item in patch:
        known = next((old for old in target if old["type"] == item["type"]), None)
        if known is None:
            target.append(item)
        else:
            merge(known, item)


def pod(name: str, *containers: Object, namespace: str = "default", **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
        "spec": {"nodeName": "lab-1", "containers": list(containers), "terminationGracePeriodSeconds": 5, **spec},
    }


def shell(script: str, name: str = "main", **more: Any) -> Object:
    return {"name": name, "image": "lab/host", "command": ["sh", "-c", script], **more}
