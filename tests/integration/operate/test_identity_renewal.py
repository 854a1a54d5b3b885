"""A run that outlives the identity it began with: where that is refused, the stored one is read and shown, once.

A flow's process is told of no rotation. It began before the authority was retired, its proxies are reloaded under it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from konverge.errors import Forbidden, NotFound, VerificationFailed
from konverge.kong.classifying import predict_hash
from konverge.kong.outcomes import IdentityRefused, Stored
from konverge.kube.client import KubeClient
from konverge.model.fleet import Fleet
from konverge.operate import connecting
from konverge.operate.clock import Clock
from konverge.operate.connecting import GatewayPool, open_gateways
from konverge.operate.identities import create_authority, issue_controller, issue_proxies
from konverge.pki.files import IdentityFiles
from tests.e2e.town import FLEET, Town, open_town
from tests.unit.operate.fake_kube import FakeKube

pytestmark = [pytest.mark.lab]
CONTENT = b'{"_format_version":"3.0","services":[{"name":"a","host":"a.test"}]}'


class Rotation:
    """The identities before and after a retire, and what is stored."""

    def __init__(self, town: Town) -> None:
        successor = create_authority(FLEET, town.now)
        only, both = town.trusting(successor), town.trusting(town.authority, successor)
        self.town = town
        self.early = town.controller
        """Of before the rotation: knows one authority, the old one."""
        self.old = issue_controller(FLEET, town.authority, both, town.now)
        """Of before the switch: knows both."""
        self.new = issue_controller(FLEET, successor, only, town.now)
        self.proxies = issue_proxies(FLEET, successor, only, town.now)
        self.stored: IdentityFiles | None = self.new
        self.read = 0

    async def load(self) -> IdentityFiles:
        self.read += 1
        if self.stored is None:
            raise NotFound("there is no Secret kong/shop-controller")
        return self.stored

    async def retire(self) -> None:
        """The proxies refuse the old authority from now on; kept connections are cut."""
        await self.town.reload(self.proxies)


@pytest.mark.parametrize("which", ["early", "old"])
async def test_a_run_in_flight_over_a_retire_goes_on(tmp_path: Path, which: str) -> None:
    async with open_town(tmp_path) as town:
        rotation = Rotation(town)
        async with GatewayPool(FLEET, getattr(rotation, which), load=rotation.load) as pool:
            gateway = pool.reach(town.proxy)
            before = await gateway.identify()
            assert await gateway.loaded_hash() == "0" * 32
            assert rotation.read == 0, "what is accepted is not read again"
            await rotation.retire()
            assert await gateway.push(CONTENT) == Stored(predict_hash(CONTENT))
            after = await gateway.identify()
            assert after.issuer != before.issuer
            assert after.trusted_authorities == (after.issuer,), "told with the identity that is in force"
            assert await gateway.loaded_hash() == predict_hash(CONTENT)
    assert rotation.read == 1


@pytest.mark.parametrize("which", ["early", "old"])
@pytest.mark.parametrize("ask", ["identify", "loaded_hash", "version"])
async def test_every_question_takes_the_stored_identity_up(tmp_path: Path, ask: str, which: str) -> None:
    async with open_town(tmp_path) as town:
        rotation = Rotation(town)
        async with GatewayPool(FLEET, getattr(rotation, which), load=rotation.load) as pool:
            await rotation.retire()
            assert await getattr(pool.reach(town.proxy), ask)()
    assert rotation.read == 1


async def test_many_refusals_at_once_are_one_reading(tmp_path: Path) -> None:
    async with open_town(tmp_path) as town:
        rotation = Rotation(town)
        await rotation.retire()
        async with GatewayPool(FLEET, rotation.old, load=rotation.load) as pool:
            proxies = [town.proxy.model_copy(update={"uid": f"u{n}"}) for n in range(8)]
            await asyncio.gather(*(pool.reach(proxy).identify() for proxy in proxies))
    assert rotation.read == 1


@pytest.mark.parametrize("stored", ["the same", "none"])
async def test_what_the_stored_identity_does_not_mend_is_told_as_before(tmp_path: Path, stored: str) -> None:
    async with open_town(tmp_path) as town:
        rotation = Rotation(town)
        rotation.stored = rotation.old if stored == "the same" else None
        await rotation.retire()
        async with GatewayPool(FLEET, rotation.old, load=rotation.load) as pool:
            gateway = pool.reach(town.proxy)
            with pytest.raises(Forbidden) as caught:
                await gateway.identify()
            assert caught.value.reason == "IdentityRefused"
            assert isinstance(await gateway.push(CONTENT), IdentityRefused)
        assert rotation.read == 1, "who is refused for good does not read the Secret with every call"
        async with GatewayPool(FLEET, rotation.early) as pool:
            with pytest.raises(VerificationFailed):
                await pool.reach(town.proxy).identify()


async def test_the_gateways_of_a_verb_read_the_identity_that_is_stored_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_town(tmp_path) as town:
        rotation = Rotation(town)
        rotation.stored = rotation.old

        async def load(_kube: KubeClient, _fleet: Fleet, _clock: Clock) -> IdentityFiles:
            return await rotation.load()

        monkeypatch.setattr(connecting, "load_controller", load)
        async with open_gateways(FakeKube(), FLEET) as gateways:
            await gateways.reach(town.proxy).identify()
            rotation.stored = rotation.new
            await rotation.retire()
            await gateways.reach(town.proxy).identify()
    assert rotation.read == 2
