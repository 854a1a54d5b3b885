"""Reconciling: compile once per change, push once, onboard newcomers, heal drift, take a harmful revision back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from konverge.controller import reconciling
from konverge.controller.reconciling import Reconciler
from konverge.errors import Forbidden, Unavailable
from konverge.kube.resources import CONFIG_REVISIONS, PODS, PROXY_FLEETS, SECRETS, Object
from konverge.model.fleet import Fleet, FleetSpec, FleetStatus, Rollout
from konverge.model.proxy import CONFIGURED_GATE, ZERO_HASH
from konverge.model.revision import Revision
from konverge.operate import configuring
from konverge.operate.fleets import apply_fleet, load_fleet
from tests.unit.operate.fake_gateways import FakeGateways
from tests.unit.operate.fake_kube import FakeKube


class Sources:
    """What the caches would show."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.synced = True

    def fleet(self) -> Object | None:
        return self.world.kube.objects.get(PROXY_FLEETS, {}).get(("default", "shop"))

    def objects(self) -> list[Object]:
        return [{"content": self.world.content}]

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


class World:
    """A cluster, its proxies, and a controller that sees both."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kube, self.gateways = FakeKube(), FakeGateways()
        self.content = "one"
        self.harmful: set[str] = set()
        self.pods: set[str] = set()
        self.compiled = 0

        @asynccontextmanager
        async def open_gateways(*_: Any) -> AsyncIterator[FakeGateways]:
            for fake in self.gateways.proxies.values():
                fake.stuck = self.content in self.harmful
            yield self.gateways

        monkeypatch.setattr(reconciling, "open_gateways", open_gateways)
        monkeypatch.setattr(reconciling, "compile_revision", self._compile)
        monkeypatch.setattr(configuring, "PROBE_SECONDS", 0.0)
        monkeypatch.setattr(configuring, "LONGEST_WAIT", 0.0)
        self.controller = Reconciler(self.kube, Sources(self))  # type: ignore[arg-type]

    def _compile(self, _fleet: Fleet, sources: list[Object], _clock: Any) -> tuple[Revision, Any]:
        self.compiled += 1
        draft = Revision(number=0, content=orjson.dumps(sources), marker=sources[0]["content"])
        # What a proxy routes after a push: a harmful revision leaves it with nothing that answers.
        self.gateways.markers[draft.hash] = "" if self.content in self.harmful else draft.marker
        return draft, type("Rendered", (), {"problems": ()})()

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


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    opened = await World(monkeypatch).open()
    await opened.controller.reconcile()
    return opened


async def test_newcomers_are_onboarded_and_counted(world: World) -> None:
    assert world.ready() == {"p0", "p1", "p2"}
    status = await world.status()
    assert (status.current_revision, status.last_good_revision, status.counts.ready) == (1, 1, 3)
    assert world.controller.counters.onboarded == 3


async def test_without_a_change_nothing_is_pushed_or_written(world: World) -> None:
    writes, pushes = list(world.kube.writes), world.pushes()
    for _ in range(3):
        await world.controller.reconcile()
    assert world.kube.writes == writes
    assert world.pushes() == pushes


async def test_a_change_is_stored_once_and_pushed_once(world: World) -> None:
    await world.change("two")
    await world.controller.reconcile()
    assert world.pushes() == [2, 2, 2]
    assert world.routed() == {"two"}
    assert len(world.kube.all(CONFIG_REVISIONS)) == 2


async def test_writes_do_not_grow_with_the_number_of_reconciliations_but_with_changes(world: World) -> None:
    for content in ("two", "three"):
        await world.change(content)
    revisions = [
        str(call) for call in world.kube.calls if call.method == "POST" and call.resource == CONFIG_REVISIONS
    ]
    assert len(revisions) == 3


async def test_a_proxy_that_lost_its_configuration_gets_it_again(world: World) -> None:
    fake = world.gateways.proxies["p1"]
    fake.loaded, fake.routes = ZERO_HASH, ""
    await world.controller.reconcile()
    assert world.pushes() == [1, 2, 1]
    assert world.routed() == {"one"}
    assert world.controller.counters.drifted == 1


async def test_a_replaced_pod_is_a_newcomer(world: World) -> None:
    world.stop("p1")
    world.start("p9")
    await world.controller.reconcile()
    assert world.ready() == {"p0", "p2", "p9"}
    assert world.pushes() == [1, 1, 1]


async def test_a_proxy_that_is_out_of_reach_has_not_drifted_and_holds_nobody_back(world: World) -> None:
    world.gateways.proxies["p1"].sick = Unavailable("down", reason="ProxyUnreachable")
    await world.controller.reconcile()
    assert world.controller.counters.drifted == 0
    await world.change("two")
    assert {world.gateways.proxies[name].routes for name in ("p0", "p2")} == {"two"}
    world.gateways.proxies["p1"].sick = None
    await world.controller.reconcile()
    assert world.routed() == {"two"}


async def test_a_new_fleet_gets_its_identities_and_keeps_them(world: World) -> None:
    names = {f"shop-{name}" for name in ("authority", "controller-identity", "gateway-identity")}
    stored = {name: world.kube.one(SECRETS, name)["data"] for name in names}
    await world.change("two")
    assert {name: world.kube.one(SECRETS, name)["data"] for name in names} == stored
    world.kube.drop(SECRETS, "shop-gateway-identity")
    await world.controller.reconcile()
    assert "tls.key" in world.kube.one(SECRETS, "shop-gateway-identity")["data"]
    assert world.kube.one(SECRETS, "shop-authority")["data"] == stored["shop-authority"]


async def test_a_controller_that_reaches_nobody_takes_nobody_out_of_traffic(world: World) -> None:
    for fake in world.gateways.proxies.values():
        fake.sick = Forbidden("our certificate expired", reason="IdentityRefused")
    await world.change("two")
    assert world.ready() == {"p0", "p1", "p2"}


async def test_a_proxy_that_holds_no_configuration_and_takes_none_leaves_the_traffic(world: World) -> None:
    fake = world.gateways.proxies["p2"]
    fake.loaded, fake.refuses = ZERO_HASH, True
    await apply_fleet(
        world.kube, "shop", "default", FleetSpec(proxy_service="s", rollout=Rollout(canary=1, max_failures=1))
    )
    await world.change("two")
    assert world.ready() == {"p0", "p1"}


async def test_a_restarted_controller_finds_everything_in_place(world: World) -> None:
    world.controller = Reconciler(world.kube, Sources(world))  # type: ignore[arg-type]
    await world.controller.reconcile()
    assert world.pushes() == [1, 1, 1]
    assert len(world.kube.all(CONFIG_REVISIONS)) == 1


async def test_a_harmful_revision_stops_at_the_canary_and_is_taken_back(world: World) -> None:
    await world.change("bad", harmful=True)
    assert world.pushes() == [2, 1, 1]
    assert "stopped at canary: proxy p0" in world.controller.last_error
    status = await world.status()
    assert status.last_good_revision == 1
    world.harmful.clear()  # the proxies themselves are sound
    await world.controller.reconcile()
    assert world.routed() == {"one"}
    assert {world.gateways.proxies[n].loaded for n in world.pods} == {status.last_good_hash}
    assert (await world.status()).current_revision == 1
    for _ in range(3):
        await world.controller.reconcile()
    assert world.pushes() == [3, 1, 1], "it is not tried again and again"


async def test_newcomers_get_the_last_good_revision_while_the_newest_is_harmful(world: World) -> None:
    await world.change("bad", harmful=True)
    world.harmful.clear()
    for name in sorted(world.pods):
        world.stop(name)
    for name in ("q0", "q1"):
        world.start(name)
    await world.controller.reconcile()
    assert world.ready() == {"q0", "q1"}
    assert world.routed() == {"one"}


async def test_a_harmful_revision_that_only_newcomers_meet_is_taken_back_as_well(world: World) -> None:
    for name in sorted(world.pods):
        world.stop(name)
    for name in ("q0", "q1"):
        world.start(name)
    await world.change("bad", harmful=True)
    assert world.ready() == set()
    world.harmful.clear()
    await world.controller.reconcile()
    assert world.ready() == {"q0", "q1"}
    assert world.routed() == {"one"}


async def test_the_next_change_is_tried_at_once(world: World) -> None:
    await world.change("bad", harmful=True)
    await world.change("better")
    assert world.routed() == {"better"}
    assert (await world.status()).last_good_revision == 3


async def test_after_a_while_the_canary_gets_another_try(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciling, "HARMFUL_SECONDS", 0.0)
    await world.change("bad", harmful=True)
    world.harmful.clear()
    world.gateways.markers = {k: v or "bad" for k, v in world.gateways.markers.items()}
    world.gateways.proxies["p0"].loaded = ZERO_HASH
    await world.controller.reconcile()
    assert world.routed() == {"bad"}


async def test_a_paused_fleet_is_left_alone(world: World) -> None:
    await apply_fleet(world.kube, "shop", "default", FleetSpec(proxy_service="s", paused=True))
    compiled = world.compiled
    await world.change("two")
    assert world.pushes() == [1, 1, 1]
    assert world.compiled == compiled


async def test_without_a_fleet_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    await world.controller.reconcile()
    assert world.kube.writes == []


async def test_no_proxies_are_no_reason_not_to_store_a_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World(monkeypatch).open(proxies=0)
    await world.controller.reconcile()
    status = await world.status()
    assert (status.current_revision, status.last_good_revision) == (1, 0)
    world.start("p0")
    await world.controller.reconcile()
    assert world.ready() == {"p0"}


async def test_a_killed_controller_leaves_nothing_half_done(world: World) -> None:
    world.kube.fail(1, lambda: Unavailable("api"), lambda call: call.resource == CONFIG_REVISIONS and call.writes)
    with pytest.raises(Unavailable):
        await world.change("two")
    assert world.routed() == {"one"}
    await world.controller.reconcile()
    assert world.routed() == {"two"}
    assert (await world.status()).last_good_revision == 2
