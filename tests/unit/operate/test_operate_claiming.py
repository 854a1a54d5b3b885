"""One sync of a fleet at a time: the dead hold nobody up, the living are waited for, a waiter is seen."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from fake_kube import FakeKube

from konverge.errors import Busy
from konverge.kube.resources import LEASES
from konverge.model.fleet import Fleet, FleetSpec
from konverge.operate import claiming
from konverge.operate.claiming import claim_fleet, name_process

FLEET = Fleet(name="shop", namespace="default", spec=FleetSpec(proxy_service="s"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "RENEW_SECONDS", 0.02)


def put(kube: FakeKube, name: str, holder: str) -> None:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2030-01-01T00:00:00.000000Z"}
    kube.put(LEASES, {"metadata": {"name": name}, "spec": spec})


def holder(kube: FakeKube, name: str = "shop-sync") -> str:
    return str(kube.one(LEASES, name)["spec"]["holderIdentity"])


async def test_a_claim_is_held_in_the_block_and_given_up_after_it() -> None:
    kube = FakeKube()
    async with claim_fleet(kube, FLEET) as claim:
        assert holder(kube).startswith(name_process())
        assert claim.may_act()
        assert not claim.superseded()
    assert holder(kube) == ""


async def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once() -> None:
    kube = FakeKube()
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    name = name_process(ended.pid)
    ended.kill()
    await asyncio.wait_for(ended.wait(), 60)
    put(kube, "shop-sync", f"{name}/0")
    async with claim_fleet(kube, FLEET, within=0.0):
        assert holder(kube).startswith(name_process())


@pytest.mark.parametrize("who", ["alive", "elsewhere"])
async def test_the_lease_of_somebody_alive_is_waited_for(who: str) -> None:
    kube = FakeKube()
    name = f"{name_process()}/9" if who == "alive" else "another-host/1/2/3"
    put(kube, "shop-sync", name)
    with pytest.raises(Busy, match="Another sync of ProxyFleet default/shop") as caught:
        async with claim_fleet(kube, FLEET, within=0.05):
            pytest.fail("it is held by somebody else")
    assert caught.value.reason == "SyncRunning"
    assert holder(kube) == name
    assert holder(kube, "shop-sync-next") == "", "who gives up leaves the queue"


async def superseded(claim: claiming.Claim, wanted: bool, rounds: int = 500) -> bool:
    """Look until the claim says so, at most so many rounds of its own pace."""
    for _ in range(rounds):
        if claim.superseded() is wanted:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_a_waiter_that_renews_is_made_way_for_and_a_dead_one_is_not() -> None:
    kube = FakeKube()
    put(kube, "shop-sync-next", "dead-host/1/2/3")
    async with claim_fleet(kube, FLEET) as claim:
        assert not await superseded(claim, True, rounds=20)
        put(kube, "shop-sync-next", "live-host/1/2/3")
        assert await superseded(claim, True)
        put(kube, "shop-sync-next", "")
        assert await superseded(claim, False)


def test_a_process_is_named_once_and_for_all() -> None:
    assert name_process() == name_process(os.getpid())
    assert name_process(2**22 + 1).endswith("/gone")
