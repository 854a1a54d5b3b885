"""A controller in a world in memory: what the caches show, what a compiler makes, proxies that answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from konverge.controller.reconciling import Reconciler
from konverge.kube.resources import PODS, PROXY_FLEETS, Object
from konverge.model.fleet import Fleet, FleetSpec, FleetStatus, Rollout
from konverge.model.proxy import CONFIGURED_GATE, Proxy
from konverge.model.revision import Revision
from konverge.operate import configuring
from konverge.operate.compiling import Compiled
from konverge.operate.fleets import apply_fleet, load_fleet
from konverge.operate.quarantining import Quarantine
from tests.unit.operate.fake_gateways import FakeGateways
from tests.unit.operate.fake_kube import FakeKube


class Sources:
    """What the caches would show."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.synced = True
        self.compiler = Compiler(world)

    def fleet(self) -> Object | None:
        return self.world.kube.objects.get(PROXY_FLEETS, {}).get(("default", "shop"))

    def objects(self) -> list[Object]:
        return []

    def versions(self) -> dict[str, str]:
        return {}

    def wake(self) -> None:
        """Nobody waits."""

    def slices(self, _service: str) -> list[Object]:
        endpoints = [
            {
                "addresses": ["127.0.0.9"],
                "conditions": {"serving": name in self.world.ready()},
                "targetRef": {"kind": "Pod", "name": name, "uid": f"uid-{name}"},
            }
            for name in sorted(self.world.pods)
        ]
        return [{"endpoints": endpoints}]


class Compiler:
    """Makes a draft of what the world's sources say."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rendered = 0

    async def compile(self, _fleet: Fleet, _snapshot: Any) -> Compiled:
        self.rendered += 1
        world = self.world
        draft = world.draft()
        # What a proxy routes after a push: a harmful revision leaves it with nothing that answers.
        world.gateways.markers[draft.hash] = "" if world.content in world.harmful else draft.marker
        rendered: Any = SimpleNamespace(problems=())
        return Compiled(draft, rendered, True)


class Reach:
    """Hands out the gateways of the world."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def open(self, _fleet: Fleet) -> FakeGateways:
        return self.world.gateways

    async def retain(self, _proxies: list[Proxy]) -> None:
        """Nothing is kept."""


class World:
    """A cluster, its proxies, and a controller that sees both."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kube, self.gateways = FakeKube(), FakeGateways()
        self.content = "one"
        self.harmful: set[str] = set()
        self.pods: set[str] = set()
        self.leads = True
        monkeypatch.setattr(configuring, "PROBE_SECONDS", 0.0)
        monkeypatch.setattr(configuring, "LONGEST_WAIT", 0.0)
        self.restart()

    def restart(self) -> None:
        """Another process: nothing is remembered."""
        sources: Any = Sources(self)
        self.controller = Reconciler(self.kube, sources, may_act=lambda: self.leads)
        self.controller.site.reach = Reach(self)  # type: ignore[assignment]

    def be_patient(self) -> None:
        """Time passes: whoever was sick is due again."""
        self.controller.site.roster.quarantine = Quarantine()
        for member in self.controller.site.roster:
            member.knock_at = 0.0

    def draft(self) -> Revision:
        """What the sources come to."""
        return Revision(number=0, content=orjson.dumps(self.content), marker=self.content)

    async def open(self, proxies: int = 3, **spec: Any) -> World:
        rollout = Rollout(canary=1, wave_size=2)
        await apply_fleet(self.kube, "shop", "default", FleetSpec(proxy_service="s", rollout=rollout, **spec))
        for index in range(proxies):
            self.start(f"p{index}")
        return self

    def start(self, name: str) -> None:
        """A pod that has no configuration yet."""
        self.gateways.add(name)
        self.pods.add(name)
        self.kube.put(PODS, {"metadata": {"name": name}, "status": {"conditions": []}})

    def stop(self, name: str) -> None:
        self.pods.discard(name)
        self.kube.drop(PODS, name)

    def ready(self) -> set[str]:
        """The pods whose gate is open."""
        return {
            pod["metadata"]["name"]
            for pod in self.kube.all(PODS)
            for c in pod["status"]["conditions"]
            if (c["type"], c["status"]) == (CONFIGURED_GATE, "True")
        }

    def pushes(self) -> list[int]:
        return [self.gateways.proxies[name].pushes for name in sorted(self.pods)]

    def routed(self) -> set[str]:
        return {self.gateways.proxies[name].routes for name in self.pods}

    async def change(self, content: str, *, harmful: bool = False) -> None:
        self.content = content
        if harmful:
            self.harmful.add(content)
        await self.controller.reconcile()

    async def status(self) -> FleetStatus:
        return (await load_fleet(self.kube, "shop", "default")).status
