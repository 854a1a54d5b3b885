"""What the controller talks to, reduced to what a test can script and read back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from konverge.errors import Unavailable
from konverge.kube.caching import object_key
from konverge.kube.resources import Resource
from konverge.lab.sidecar.admin import ZEROS, Answer
from konverge.lab.sidecar.watching import WATCHED, ClusterView

Object = dict[str, Any]
BY_KIND = {resource.kind: resource for resource in WATCHED}


class ScriptedKube:
    """Takes writes down; ``failing`` makes every write fail."""

    server = "https://kube.test"
    requests = 7

    def __init__(self) -> None:
        self.patches: list[tuple[str, str, Any]] = []
        self.events: list[Object] = []
        self.failing = False

    async def patch(
        self, resource: Resource, name: str, patch: Any, namespace: str | None = None, *, subresource: str = ""
    ) -> Object:
        assert subresource == "status"
        if self.failing:
            raise Unavailable("down")
        self.patches.append((resource.kind, name, patch["status"]))
        return {}

    async def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        assert body["metadata"]["namespace"] == namespace
        if self.failing:
            raise Unavailable("down")
        self.events.append(body)
        return body


class ScriptedAdmin:
    """A gateway that answers pushes as scripted, and remembers what it was sent."""

    url = "https://localhost:8444"
    requests = 3

    def __init__(self) -> None:
        self.pushed: list[Mapping[str, Any]] = []
        self.answers: list[Answer] = []
        self.hash = "a" * 32
        self.unreachable = 0
        self.root: Object = {"version": "3.9.1", "configuration": {"router_flavor": "traditional"}}
        self.schemas: dict[str, Any] = {}

    async def read_hash(self) -> str:
        if self.unreachable:
            self.unreachable -= 1
            raise Unavailable("nobody answers")
        return self.hash

    async def read_root(self) -> Object:
        return self.root

    async def read_schemas(self, plugins: set[str]) -> Mapping[str, Any]:
        return {name: self.schemas[name] for name in plugins if name in self.schemas}

    async def push(self, document: Mapping[str, Any]) -> Answer:
        self.pushed.append(document)
        answer = self.answers.pop(0) if self.answers else Answer(201)
        if answer.stored and self.hash == ZEROS:
            self.hash = "b" * 32
        return answer


def view_of(kube: Any, *objects: Object) -> ClusterView:
    """Return a synced view of these objects."""
    view = ClusterView(kube)
    for resource in WATCHED:
        view.of(resource).synced.set()
    put(view, *objects)
    return view


def put(view: ClusterView, *objects: Object) -> None:
    for body in objects:
        cache = view.of(BY_KIND[body["kind"]])
        cache.objects[object_key(body)] = body
        assert cache.on_change is not None
        cache.on_change("MODIFIED", body)
