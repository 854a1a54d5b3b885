"""A waiter is made way for as long as it lives, and is seen although the API server did not answer at first."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_kube import FakeKube

from konverge.errors import Unavailable
from konverge.kube.leasing import Candidate
from konverge.kube.resources import LEASES
from konverge.model.fleet import Fleet, FleetSpec
from konverge.operate import claiming
from konverge.operate.claiming import Claim

FLEET = Fleet(name="shop", namespace="default", spec=FleetSpec(proxy_service="s"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "RENEW_SECONDS", 0.02)


def renew(kube: FakeKube, who: str = "live-host/1/2/3") -> None:
    kube.put(LEASES, {"metadata": {"name": "shop-sync-next"}, "spec": {"holderIdentity": who}})


async def see(claim: Claim, wanted: bool) -> None:
    async with asyncio.timeout(30):
        while claim.superseded() is not wanted:  # noqa: ASYNC110 - the claim tells nobody
            await asyncio.sleep(0.01)


async def test_a_waiter_that_dies_while_it_waits_is_made_way_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "LEASE_SECONDS", 0.5)
    kube = FakeKube()
    renew(kube)
    claim = Claim(Candidate(kube, "shop-sync", "default", "us"))
    watching = asyncio.create_task(claim.watch(kube, FLEET))
    try:
        await asyncio.sleep(0.1)
        renew(kube)
        await see(claim, True)
        await see(claim, False)
        renew(kube)
        await see(claim, True)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_a_waiter_is_seen_although_the_first_look_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    kube, looks = FakeKube(), 0
    look = claiming._read_lease

    async def read(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise Unavailable("nobody answers")
        renew(kube)
        return await look(*args)

    monkeypatch.setattr(claiming, "_read_lease", read)
    claim = Claim(Candidate(kube, "shop-sync", "default", "us"))
    watching = asyncio.create_task(claim.watch(kube, FLEET))
    try:
        await see(claim, True)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
