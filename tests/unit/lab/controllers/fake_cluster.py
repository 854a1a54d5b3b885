"""A cluster in memory with the methods of KubeClient that the controllers call: no server, no time."""

import asyncio
import copy
import itertools
from typing import Any

from konverge.errors import Conflict, Invalid, NotFound
from konverge.kube.resources import DEPLOYMENTS, PODS, REPLICA_SETS, Object, Resource


class FakeCluster:
    """Stores objects, refuses stale writes, and tells watchers at once."""

    def __init__(self) -> None:
        self.version = itertools.count(1)
        self.latest = 0
        self.names = itertools.count(1)
        self.objects: dict[Resource, dict[tuple[str, str], Object]] = {}
        self.watchers: dict[Resource, list[asyncio.Queue[tuple[str, Object]]]] = {}
        self.writes: list[tuple[str, str, str]] = []
        self.refuse: Exception | None = None
        """Raised by every creation of a pod while it is set."""

    def _table(self, resource: Resource) -> dict[tuple[str, str], Object]:
        return self.objects.setdefault(resource, {})

    def _publish(self, kind: str, resource: Resource, item: Object) -> Object:
        self.latest = next(self.version)
        item["metadata"]["resourceVersion"] = str(self.latest)
        for queue in self.watchers.get(resource, []):
            queue.put_nowait((kind, copy.deepcopy(item)))
        return copy.deepcopy(item)

    async def list_at(self, resource: Resource, namespace: str | None = None, **_: Any) -> Any:
        await asyncio.sleep(0)
        return [copy.deepcopy(item) for item in self._table(resource).values()], str(self.latest)

    async def watch(self, resource: Resource, namespace: str | None = None, **_: Any) -> Any:
        queue: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()
        self.watchers.setdefault(resource, []).append(queue)
        while True:
            yield await queue.get()

    async def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        await asyncio.sleep(0)
        if resource == PODS and self.refuse is not None:
            raise self.refuse
        item = copy.deepcopy(body)
        metadata = item["metadata"]
        number = next(self.names)
        metadata.setdefault("name", f"{metadata.get('generateName', '')}{number:05d}")
        key = (metadata["namespace"], metadata["name"])
        if key in self._table(resource):
            raise Conflict("exists", reason="AlreadyExists")
        stamp = f"2026-01-01T00:{number // 60 % 60:02d}:{number % 60:02d}Z"
        metadata.update({"uid": f"uid-{number}", "creationTimestamp": stamp, "generation": 1})
        self._table(resource)[key] = item
        self.writes.append(("create", resource.plural, metadata["name"]))
        return self._publish("ADDED", resource, item)

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        await asyncio.sleep(0)
        found = self._table(resource).get((namespace or "default", name))
        if found is None:
            raise NotFound(name)
        return copy.deepcopy(found)

    async def find(self, resource: Resource, name: str, namespace: str | None = None) -> Object | None:
        try:
            return await self.get(resource, name, namespace)
        except NotFound:
            return None

    async def replace(self, resource: Resource, body: Object, subresource: str | None = None) -> Object:
        await asyncio.sleep(0)
        metadata = body["metadata"]
        held = self._table(resource).get((metadata["namespace"], metadata["name"]))
        if held is None:
            raise NotFound(metadata["name"])
        if held["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise Conflict("stale")
        if subresource == "status":
            held["status"] = copy.deepcopy(body["status"])
        else:
            if held.get("spec") != body.get("spec"):
                held["metadata"]["generation"] += 1
            generation, status = held["metadata"]["generation"], held.get("status")
            held.clear()
            held.update(copy.deepcopy(body))
            held["metadata"]["generation"] = generation
            if status is not None:
                held["status"] = status
        self.writes.append(("replace", resource.plural, metadata["name"]))
        return self._publish("MODIFIED", resource, held)

    async def patch(
        self, resource: Resource, name: str, patch: Any, namespace: str | None = None, *, kind: str = "merge"
    ) -> Object:
        await asyncio.sleep(0)
        held = self._table(resource).get((namespace or "default", name))
        if held is None:
            raise NotFound(name)
        metadata = patch["metadata"]
        if kind == "merge":
            held["metadata"].setdefault("annotations", {}).update(metadata["annotations"])
        else:
            if metadata["uid"] != held["metadata"]["uid"]:
                raise Conflict("uid")
            self._patch_owners(held, metadata["ownerReferences"][0])
        self.writes.append(("patch", resource.plural, name))
        return self._publish("MODIFIED", resource, held)

    def _patch_owners(self, held: Object, change: Object) -> None:
        owners = [entry for entry in held["metadata"].get("ownerReferences") or [] if entry["uid"] != change["uid"]]
        if change.get("$patch") != "delete":
            owners.append(copy.deepcopy(change))
        held["metadata"]["ownerReferences"] = owners

    async def delete(self, resource: Resource, name: str, namespace: str | None = None, **_: Any) -> None:
        await asyncio.sleep(0)
        held = self._table(resource).get((namespace or "default", name))
        if held is None:
            return
        self.writes.append(("delete", resource.plural, name))
        if resource == PODS:
            if not held["metadata"].get("deletionTimestamp"):
                held["metadata"]["deletionTimestamp"] = "2026-01-01T01:00:00Z"
                self._publish("MODIFIED", resource, held)
            return
        self.remove(resource, name, namespace or "default")

    def remove(self, resource: Resource, name: str, namespace: str = "default") -> None:
        """What the API server does at the end of a deletion."""
        held = self._table(resource).pop((namespace, name))
        self._publish("DELETED", resource, held)

    def change(self, resource: Resource, name: str, namespace: str = "default", **sections: Any) -> Object:
        """What a user or a kubelet does: merge into spec, status or metadata."""
        held = self._table(resource)[(namespace, name)]
        for section, values in sections.items():
            held.setdefault(section, {}).update(copy.deepcopy(values))
        if "spec" in sections:
            held["metadata"]["generation"] += 1
        return self._publish("MODIFIED", resource, held)

    def all(self, resource: Resource) -> list[Object]:
        """Every object of a kind."""
        return list(self._table(resource).values())

    def one(self, resource: Resource, name: str, namespace: str = "default") -> Object:
        """One object as it is stored."""
        found = self._table(resource).get((namespace, name))
        if found is None:
            raise Invalid(f"no {name}")
        return found

    def make_ready(self, pod: Object, ready: bool = True, **extra: Any) -> None:
        """What a kubelet reports for a pod."""
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": "2026-01-01T00:00:00Z"}
        address = f"127.20.64.{int(pod['metadata']['uid'].removeprefix('uid-')) % 250 + 2}"
        status = {"phase": "Running", "podIP": address, "conditions": [condition], **extra}
        self.change(PODS, pod["metadata"]["name"], pod["metadata"]["namespace"], status=status)


def deployment(name: str = "web", replicas: int = 3, image: str = "one", **spec: Any) -> Object:
    """A Deployment with Kubernetes' defaults filled in."""
    return {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": DEPLOYMENTS.kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, image),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            **spec,
        },
    }


def template(name: str, image: str) -> Object:
    """A pod template."""
    return {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image}]}}


def replica_set(name: str = "set", replicas: int = 2, **spec: Any) -> Object:
    """A ReplicaSet of its own."""
    return {
        "apiVersion": REPLICA_SETS.api_version,
        "kind": REPLICA_SETS.kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template(name, "one"),
            **spec,
        },
    }
