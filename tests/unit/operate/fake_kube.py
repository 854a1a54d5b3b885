"""An API server in memory behind the real KubeClient: only the wire is replaced, so paths and patches are real.

It keeps resourceVersions and generations, refuses stale writes, knows the status subresource, collects owned
objects, and can fail or be "killed" before or after any write.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jsonpatch
import orjson
from kubernetes.aio.client.configuration import Configuration

from konverge.kube import resources
from konverge.kube.client import PATCH_TYPES, KubeClient, map_status
from konverge.kube.resources import Object, Resource

KNOWN = {r.path(): r for r in vars(resources).values() if isinstance(r, Resource)}
KNOWN |= {r.path(): r for r in resources.SOURCES}
RBAC = "rbac.authorization.k8s.io"
for plural, kind in (("roles", "Role"), ("rolebindings", "RoleBinding")):
    for prefix, spread in (("", True), ("cluster", False)):
        item = Resource(RBAC, "v1", prefix + plural, prefix.capitalize() + kind, spread)
        KNOWN[item.path()] = item
MERGE_KEYS = {"conditions": "type", "ownerReferences": "uid", "containers": "name"}
Key = tuple[str, str]


class Killed(BaseException):
    """The process is gone: no handler of the code under test may see this as a failure."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as far as faults and checks need it."""

    method: str
    resource: Resource
    name: str
    subresource: str = ""

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.method != "GET"

    def __str__(self) -> str:
        return f"{self.method} {self.resource.plural}/{self.name}" + (
            f"/{self.subresource}" if self.subresource else ""
        )


Hook = Callable[[Call], None]
"""Called with a request; what it raises is what the caller gets."""


class FakeKube(KubeClient):
    """Stores objects; ``before`` and ``after`` hooks see every request and may raise, ``Killed`` included."""

    def __init__(self) -> None:
        super().__init__(Configuration(host="http://fake.invalid"))
        self.objects: dict[Resource, dict[Key, Object]] = {}
        self.absent: set[Resource] = set()
        self.virtual: dict[Resource, Callable[[], list[Object]]] = {}
        """Kinds that a controller would derive from the others; read only."""
        self.before: list[Hook] = []
        self.after: list[Hook] = []
        self.calls: list[Call] = []
        self._numbers = itertools.count(1)
        self._dead = False
        self.version = 0

    @property
    def writes(self) -> list[str]:
        """The writes so far, as ``METHOD plural/name``."""
        return [str(call) for call in self.calls if call.writes]

    # what a test does

    def put(self, resource: Resource, body: Object) -> Object:
        """Store an object as somebody else would."""
        body = copy.deepcopy(body)
        body.setdefault("apiVersion", resource.api_version)
        body.setdefault("kind", resource.kind)
        metadata = body["metadata"]
        if resource.namespaced:
            metadata.setdefault("namespace", "default")
        metadata.setdefault("uid", f"uid-{next(self._numbers)}")
        metadata.setdefault("generation", 1)
        return self._keep(resource, body)

    def all(self, resource: Resource) -> list[Object]:
        """Every object of a kind."""
        return list(self.objects.get(resource, {}).values())

    def one(self, resource: Resource, name: str, namespace: str = "default") -> Object:
        """One object as it is stored; changing it changes the store."""
        return self.objects[resource][(namespace, name)]

    def drop(self, resource: Resource, name: str, namespace: str = "default") -> None:
        """Remove an object and what it owns."""
        gone = self.objects[resource].pop((namespace, name))
        for other, table in list(self.objects.items()):
            for body in list(table.values()):
                owners = body["metadata"].get("ownerReferences") or ()
                if any(owner["uid"] == gone["metadata"]["uid"] for owner in owners):
                    self.drop(other, body["metadata"]["name"], body["metadata"].get("namespace", ""))

    def fail(self, times: int, error: Callable[[], BaseException], when: Callable[[Call], bool]) -> None:
        """Let the next ``times`` requests that match fail before they have an effect."""
        left = itertools.count(times, -1)

        def hook(call: Call) -> None:
            if when(call) and next(left) > 0:
                raise error()

        self.before.append(hook)

    def kill_at(self, number: int, *, after: bool) -> None:
        """Kill the caller at its write ``number`` from now (0 is the next), before or after the effect.

        What it had under way in other tasks dies with it, until :meth:`heal`.
        """
        left = itertools.count(number, -1)

        def hook(call: Call) -> None:
            if call.writes and next(left) == 0:
                self._dead = True
                raise Killed(str(call))

        (self.after if after else self.before).append(hook)

    def heal(self) -> None:
        """Take all faults away."""
        self.before.clear()
        self.after.clear()
        self._dead = False

    # the wire

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float = 30.0,
    ) -> bytes:
        await asyncio.sleep(0)
        self.requests += 1
        if self._dead:
            raise Killed("already")
        call, namespace = self._parse(method, path)
        for hook in list(self.before):
            hook(call)
        answer = self._answer(call, namespace, dict(query or {}), copy.deepcopy(body), content_type)
        self.calls.append(call)
        for hook in list(self.after):
            hook(call)
        return orjson.dumps(answer)

    def _parse(self, method: str, path: str) -> tuple[Call, str | None]:
        parts = path.strip("/").split("/")
        head, rest = (parts[:2], parts[2:]) if parts[0] == "api" else (parts[:3], parts[3:])
        namespace = None
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        if not rest:
            group = head[1] if len(head) > 2 else ""
            if any(r.group == group and r not in self.absent for r in KNOWN.values()):
                return Call(method, Resource(group, head[-1], "", ""), ""), None
            raise map_status(404, b'{"message":"the server could not find the requested resource"}', path)
        resource = KNOWN.get("/" + "/".join([*head, rest[0]]))
        if resource is None or resource in self.absent:
            raise map_status(404, b'{"message":"the server could not find the requested resource"}', path)
        padded = [*rest, "", ""]
        return Call(method, resource, padded[1], padded[2]), namespace

    def _answer(self, call: Call, namespace: str | None, query: dict[str, str], body: Any, kind: str) -> Any:
        if not call.resource.plural:
            return {"kind": "APIResourceList", "resources": []}
        if call.method == "GET" and not call.name:
            return self._list(call.resource, namespace, query)
        if call.method == "POST":
            return self._create(call.resource, body, namespace)
        key = (namespace or "", call.name)
        held = self.objects.get(call.resource, {}).get(key)
        if held is None and not (call.method == "PATCH" and kind == PATCH_TYPES["apply"]):
            message = orjson.dumps(
                {"message": f'{call.resource.plural} "{call.name}" not found', "reason": "NotFound"}
            )
            raise map_status(404, message, str(call))
        if call.method == "GET":
            return held
        if call.method == "DELETE":
            wanted = ((body or {}).get("preconditions") or {}).get("resourceVersion")
            if wanted and held and wanted != held["metadata"]["resourceVersion"]:
                raise map_status(409, b'{"message":"the precondition does not hold","reason":"Conflict"}', str(call))
            self.drop(call.resource, call.name, namespace or "")
            return {"kind": "Status", "status": "Success"}
        if held is None:
            return self._create(call.resource, body, namespace)
        fresh = body if call.method == "PUT" else _patched(held, body, kind)
        return self._write(call, held, fresh)

    def _list(self, resource: Resource, namespace: str | None, query: dict[str, str]) -> Any:
        items = self.virtual[resource]() if resource in self.virtual else self.all(resource)
        found = [
            item
            for item in items
            if (namespace is None or item["metadata"].get("namespace") == namespace)
            and _matches(query.get("labelSelector", ""), item["metadata"].get("labels") or {})
            and _matches(query.get("fieldSelector", ""), _fields(item))
        ]
        return {"items": found, "metadata": {"resourceVersion": str(self.version)}}

    def _create(self, resource: Resource, body: Object, namespace: str | None) -> Object:
        name = body["metadata"]["name"]
        if (namespace or "", name) in self.objects.get(resource, {}):
            text = {"message": f'{resource.plural} "{name}" already exists', "reason": "AlreadyExists"}
            raise map_status(409, orjson.dumps(text), f"POST {resource.plural}")
        if _has_status(resource):
            body.pop("status", None)
        return self.put(resource, body)

    def _write(self, call: Call, held: Object, fresh: Object) -> Object:
        version = (fresh.get("metadata") or {}).get("resourceVersion")
        if version and version != held["metadata"]["resourceVersion"]:
            raise map_status(409, b'{"message":"the object has been modified","reason":"Conflict"}', str(call))
        if call.subresource == "status":
            fresh = {**held, "status": fresh.get("status", {})}
        elif _has_status(call.resource):
            fresh = {**fresh, **({"status": held["status"]} if "status" in held else {})}
        same = {k: v for k, v in fresh["metadata"].items() if k in ("uid", "generation")}
        fresh = {**fresh, "metadata": {**fresh["metadata"], **{k: held["metadata"][k] for k in same}}}
        if fresh.get("spec") != held.get("spec"):
            fresh["metadata"]["generation"] = held["metadata"]["generation"] + 1
        if _without_version(fresh) == _without_version(held):
            return held
        return self._keep(call.resource, fresh)

    def _keep(self, resource: Resource, body: Object) -> Object:
        self.version += 1
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        key = (body["metadata"].get("namespace", ""), body["metadata"]["name"])
        self.objects.setdefault(resource, {})[key] = body
        return body


def _has_status(resource: Resource) -> bool:
    return resource.kind in {"Pod", "Deployment", "ProxyFleet", "ProxyInstance", "ConfigRevision", "FleetMigration"}


def _without_version(body: Object) -> Object:
    return {**body, "metadata": {k: v for k, v in body["metadata"].items() if k != "resourceVersion"}}


def _fields(body: Object) -> dict[str, str]:
    return {"metadata.name": body["metadata"]["name"], "type": str(body.get("type", ""))}


def _matches(selector: str, labels: Mapping[str, str]) -> bool:
    for term in filter(None, selector.split(",")):
        if "!=" in term:
            key, value = term.split("!=")
            if labels.get(key) == value:
                return False
        elif "=" in term:
            key, value = term.split("=")
            if labels.get(key) != value:
                return False
        elif (term.lstrip("!") in labels) is term.startswith("!"):
            return False
    return True


def _patched(held: Object, patch: Any, kind: str) -> Object:
    held = copy.deepcopy(held)
    if kind == PATCH_TYPES["json"]:
        result: Object = jsonpatch.apply_patch(held, patch)
        return result
    return _merge(held, patch, strategic=kind == PATCH_TYPES["strategic"])


def _merge(held: Any, patch: Any, *, strategic: bool, key: str = "") -> Any:
    if isinstance(patch, dict):
        base = dict(held) if isinstance(held, dict) else {}
        for name, value in patch.items():
            if value is None:
                base.pop(name, None)
            else:
                base[name] = _merge(base.get(name), value, strategic=strategic, key=name)
        return base
    if strategic and isinstance(patch, list) and key in MERGE_KEYS:
        return _merge_list(held or [], patch, MERGE_KEYS[key])
    return patch


def _merge_list(held: list[Object], patch: list[Object], key: str) -> list[Object]:
    merged = {item[key]: item for item in held}
    for item in patch:
        merged[item[key]] = _merge(merged.get(item[key], {}), item, strategic=True)
    return list(merged.values())
