"""A proxy that missed a rotation is reloaded with the stored files before it is onboarded; nobody else is touched."""

from __future__ import annotations

from typing import Any

import pytest

from konverge.controller import mending
from konverge.controller.mending import next_mend
from konverge.controller.roster import Member
from konverge.errors import Forbidden, VerificationFailed
from konverge.kube.resources import EVENTS, PODS
from konverge.model.proxy import Proxy, ProxyOutcome
from konverge.model.rotation import ProxyWork
from konverge.operate.attesting import OWED
from konverge.operate.onboarding import set_gate
from tests.unit.controller.world import World


class Reloads:
    """What the reloads of proxies come to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[str] = []
        self.fault = ""
        self.raises = False

    async def heal(self, _kube: Any, _fleet: Any, proxies: list[Proxy], _clock: Any) -> list[ProxyWork]:
        (proxy,) = proxies
        self.asked.append(proxy.name)
        if self.raises:
            raise VerificationFailed(f"proxy {proxy.name}: kong reload ended with 1")
        if not self.fault:
            self.world.gateways.proxies[proxy.name].sick = None
        return [ProxyWork(proxy=proxy.name, reloads=1, owes=bool(self.fault), seen=self.fault)]


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    opened = await World(monkeypatch).open()
    fleet = opened.controller.read_fleet()
    assert fleet is not None
    for pod in opened.kube.all(PODS):
        pod["metadata"]["labels"] = fleet.labels
    await opened.controller.reconcile()
    return opened


@pytest.fixture
def reloads(world: World, monkeypatch: pytest.MonkeyPatch) -> Reloads:
    made = Reloads(world)
    monkeypatch.setattr(mending, "heal_identities", made.heal)
    return made


def member(world: World, name: str) -> Member:
    return next(found for found in world.controller.site.roster if found.proxy.name == name)


async def quarantine(world: World, name: str) -> None:
    """What an emergency rotation does to a proxy that it leaves behind."""
    outcome = ProxyOutcome(proxy=name, ok=False, outcome=OWED)
    await set_gate(world.kube, member(world, name).proxy, outcome)


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
async def test_whom_a_rotation_took_out_is_reloaded_and_comes_back(
    world: World, reloads: Reloads, restarted: bool
) -> None:
    await quarantine(world, "p1")
    if restarted:
        world.restart()
    await world.controller.reconcile()
    assert reloads.asked == ["p1"]
    assert world.ready() == {"p0", "p1", "p2"}
    reasons = [event["reason"] for event in world.kube.all(EVENTS) if event["involvedObject"]["name"] == "p1"]
    assert "IdentityHealed" in reasons


async def test_it_stays_out_of_traffic_until_it_has_the_stored_identity(world: World, reloads: Reloads) -> None:
    reloads.fault = "it still trusts 1 authorities that are not in force any more"
    await quarantine(world, "p1")
    for _ in range(3):
        await world.controller.reconcile()
    assert world.ready() == {"p0", "p2"}, "though it would let the controller in"
    assert reloads.asked == ["p1"], "the next try waits"
    owing = member(world, "p1")
    assert 0 < (next_mend([owing], 0.0) or 0.0) <= owing.mend_at
    reloads.fault, owing.mend_at = "", 0.0
    await world.controller.reconcile()
    assert world.ready() == {"p0", "p1", "p2"}


@pytest.mark.parametrize("reason", ["IdentityRefused", "ServerUntrusted"])
async def test_a_newcomer_that_refuses_us_is_reloaded_and_onboarded(
    world: World, reloads: Reloads, reason: str
) -> None:
    world.start("p3")
    world.gateways.proxies["p3"].sick = Forbidden("it does not accept us", reason=reason)
    await world.controller.reconcile()
    world.be_patient()
    await world.controller.reconcile()
    assert reloads.asked == ["p3"]
    assert "p3" in world.ready()


async def test_a_reload_that_is_refused_is_tried_again_later_and_later(world: World, reloads: Reloads) -> None:
    reloads.raises = True
    await quarantine(world, "p1")
    pauses = []
    for _ in range(3):
        await world.controller.reconcile()
        owing = member(world, "p1")
        assert not owing.busy
        pauses.append(mending.FIRST_PAUSE * 2.0 ** (owing.mends - 1))
        owing.mend_at = 0.0
    assert reloads.asked == ["p1"] * 3
    assert pauses == sorted(set(pauses))
    assert "p1" not in world.ready()


async def test_a_gate_that_others_closed_for_another_reason_is_no_debt(world: World, reloads: Reloads) -> None:
    outcome = ProxyOutcome(proxy="p1", ok=False, outcome=OWED.model_copy(update={"reason": "Drained"}))
    await set_gate(world.kube, member(world, "p1").proxy, outcome)
    await world.controller.reconcile()
    assert reloads.asked == []
    assert world.ready() == {"p0", "p1", "p2"}, "it is onboarded again"
