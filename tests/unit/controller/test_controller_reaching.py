"""The identity is made where it is missing, read when it may have changed only, and kept connections outlive both."""

from __future__ import annotations

from konverge.controller.reaching import Reach
from konverge.kube.resources import SECRETS
from konverge.model.fleet import FleetSpec
from konverge.operate.fleets import apply_fleet
from konverge.operate.identities import ensure_identity
from tests.unit.operate.fake_kube import FakeKube


async def test_a_new_fleet_gets_its_identities_and_keeps_them() -> None:
    kube = FakeKube()
    fleet = await apply_fleet(kube, "shop", "default", FleetSpec(proxy_service="s"))
    reach = Reach(kube)
    gateways = await reach.open(fleet)
    names = (fleet.authority_secret, fleet.controller_secret, fleet.proxy_secret)
    stored = {name: kube.one(SECRETS, name)["data"] for name in names}
    requests = kube.requests
    for _ in range(5):
        assert await reach.open(fleet) is gateways
    assert kube.requests == requests, "at rest nothing is read"
    reach.expire()
    assert await reach.open(fleet) is gateways, "the connections stay"
    assert reach.readings == 2
    assert {name: kube.one(SECRETS, name)["data"] for name in names} == stored
    await reach.close()


async def test_an_identity_that_is_gone_is_made_again_and_a_new_fleet_gets_new_connections() -> None:
    kube = FakeKube()
    fleet = await apply_fleet(kube, "shop", "default", FleetSpec(proxy_service="s"))
    await ensure_identity(kube, fleet)
    reach = Reach(kube)
    gateways = await reach.open(fleet)
    kube.drop(SECRETS, fleet.proxy_secret)
    reach.expire()
    await reach.open(fleet)
    assert "tls.key" in kube.one(SECRETS, fleet.proxy_secret)["data"]
    assert await reach.open(fleet.model_copy(update={"uid": "another"})) is not gateways
    await reach.close()
