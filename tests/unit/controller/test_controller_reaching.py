"""The identity is made where it is missing, read when it may have changed only, and kept connections outlive both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from konverge.controller.queueing import Key
from konverge.controller.reaching import Reach
from konverge.controller.watching import Sources
from konverge.kube.resources import SEALED_IDENTITIES, SECRETS
from konverge.model.fleet import FleetSpec, Identity, KeyStoreSpec
from konverge.operate.connecting import GatewayPool
from konverge.operate.fleets import apply_fleet
from konverge.operate.identities import ensure_identity
from konverge.pki.sealing.keyring import generate_key
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


async def test_a_sealed_identity_that_changes_is_seen_by_the_watch_and_taken_up(tmp_path: Path) -> None:
    kube, key = FakeKube(), tmp_path / "key"
    key.write_text(generate_key())
    store = KeyStoreSpec(kind="sealed", key_source="file", key_name=str(key))
    spec = FleetSpec(proxy_service="s", identity=Identity(store=store))
    fleet = await apply_fleet(kube, "shop", "default", spec)
    queue: Any = Queue()
    reach, sources = Reach(kube), Sources(kube, "shop", "default", queue)
    gateways = await reach.open(fleet)
    assert isinstance(gateways, GatewayPool)
    shown = gateways._identity.files
    watched = [cache for cache in sources.identities if cache.resource == SEALED_IDENTITIES]
    assert len(watched) == 1
    for name in (fleet.authority_secret, fleet.controller_secret):
        labels = kube.one(SEALED_IDENTITIES, name)["metadata"]["labels"]
        assert watched[0].labels in [f"{key}={value}" for key, value in labels.items()]
    kube.drop(SEALED_IDENTITIES, fleet.controller_secret)
    await ensure_identity(kube, fleet)
    watched[0]._take("MODIFIED", kube.one(SEALED_IDENTITIES, fleet.controller_secret))
    assert queue.keys == [Key.IDENTITY]
    reach.expire()
    assert await reach.open(fleet) is gateways
    assert gateways._identity.files != shown
    assert gateways._identity.files.data["tls.crt"] != shown.data["tls.crt"]
    await reach.close()


class Queue:
    """Notes what wakes the controller."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    def add(self, key: Key) -> None:
        self.keys.append(key)
