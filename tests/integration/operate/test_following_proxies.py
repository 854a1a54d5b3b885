"""Somebody else's authority is followed on running proxies, which change in the order of a rotation."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from konverge.kube.resources import PODS, PROXY_FLEETS, SECRETS
from konverge.kube.streaming import ExecResult
from konverge.model.fleet import Fleet, FleetSpec, Identity, Issuer
from konverge.model.proxy import Proxy
from konverge.operate import following, reloading, rotating
from konverge.operate.clock import utc_now
from konverge.operate.connecting import GatewayPool
from konverge.operate.fleets import parse_fleet
from konverge.operate.following import follow_issuer, is_behind
from konverge.operate.healing import heal_identities
from konverge.operate.identities import ensure_identity, load_keys, request_for_controller, request_for_proxies
from konverge.operate.proving import prove_entry, prove_serial, prove_trust
from konverge.operate.rotating import Rotation
from konverge.pki.authority import Authority
from konverge.pki.files import IdentityFiles
from tests.e2e.town import Town, open_town
from tests.unit.operate.fake_kube import FakeKube

pytestmark = pytest.mark.lab
NAMES = ("gw-1", "gw-2")


class World:
    """A fleet whose leaves somebody else signs, with proxies that run in this process."""

    def __init__(self) -> None:
        self.kube = FakeKube()
        spec = FleetSpec(proxy_service="s", identity=Identity(issuer=Issuer(kind="secret")))
        body = {"metadata": {"name": "shop", "namespace": "kong"}, "spec": spec.to_json()}
        self.fleet: Fleet = parse_fleet(self.kube.put(PROXY_FLEETS, body))
        self.towns: dict[str, Town] = {}
        self.log: list[str] = []
        self.lost: set[str] = set()
        """Proxies that are cut off."""

    def publish(self, authority: Authority) -> None:
        """What somebody else does: both Secrets are written anew."""
        now = datetime.now(UTC)
        for name, request in (
            (self.fleet.issued_controller_secret, request_for_controller(self.fleet)),
            (self.fleet.issued_proxy_secret, request_for_proxies(self.fleet)),
        ):
            leaf = authority.issue(request, now)
            files = {"tls.crt": leaf.chain_pem, "tls.key": leaf.key.to_pem(), "ca.crt": authority.pem}
            data = {key: base64.b64encode(value).decode() for key, value in files.items()}
            self.kube.put(SECRETS, {"metadata": {"name": name, "namespace": "kong"}, "data": data})

    async def proxies(self, *_: Any) -> list[Proxy]:
        gone = {"admin_port": 1}
        return [
            town.proxy.model_copy(update={"name": name, **(gone if name in self.lost else {})})
            for name, town in self.towns.items()
        ]

    async def exec(self, _kube: Any, pod: str, _ns: str, _container: str, command: list[str]) -> ExecResult:
        """The kubelet projects the Secret at once; a reload is what ``kong reload`` does to the node."""
        town = self.towns[pod]
        data = self.kube.one(SECRETS, self.fleet.proxy_secret, "kong")["data"]
        for name, value in data.items():
            (town.directory / name).write_bytes(base64.b64decode(value))
        if command[0] == "cat":
            shown = [(town.directory / path.rpartition("/")[2]).read_bytes() for path in command[1:]]
            return ExecResult(0, b"".join(shown), b"")
        assert town.node is not None
        self.log.append(f"reload {pod}")
        town.node.hang_up()
        return ExecResult(0, b"Kong reloaded", b"")

    async def stored(self) -> tuple[IdentityFiles, IdentityFiles]:
        keys = await load_keys(self.kube, self.fleet)
        return keys.controller.files, keys.proxies.files

    async def configure(self) -> None:
        """Without a configuration a proxy calls itself not ready."""
        content = orjson.dumps({"_format_version": "3.0", "services": [{"name": "a", "host": "a.test"}]})
        async with GatewayPool(self.fleet, (await self.stored())[0]) as pool:
            for proxy in await self.proxies():
                await pool.reach(proxy).push(content)

    async def then_all_agree(self, authority: Authority) -> None:
        """Every proxy shows what is stored, lets the controller in, and trusts this authority alone."""
        controller, proxies = await self.stored()
        assert {f.identity.certificate.issuer for f in (controller, proxies)} == {authority.certificate.subject}
        serial = proxies.identity.certificate.serial
        for proxy in await self.proxies():
            for proof in (
                prove_serial(controller, serial),
                prove_entry(controller),
                prove_trust(proxies.bundle, exactly=True),
            ):
                assert (await proof(proxy)).fault == ""


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    made = World()
    first = Authority.create("first", datetime.now(UTC))
    made.publish(first)
    keys = await ensure_identity(made.kube, made.fleet)
    monkeypatch.setattr(rotating, "discover_proxies", made.proxies)
    monkeypatch.setattr(reloading.streaming, "exec", made.exec)
    async with AsyncExitStack() as stack:
        for name in NAMES:
            (tmp_path / name).mkdir()
            opened = open_town(tmp_path / name, lambda _: keys.proxies.files)
            made.towns[name] = await stack.enter_async_context(opened)
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            made.kube.put(PODS, {"metadata": {"name": name, "namespace": "kong"}, "status": ready})
        await made.then_all_agree(first)
        await made.configure()
        yield made


async def test_new_leaves_of_a_new_authority_are_in_force_on_every_proxy(world: World) -> None:
    rotation = Rotation(world.kube, world.fleet, utc_now)
    assert not await is_behind(rotation, await rotation.keys())
    second = Authority.create("second", datetime.now(UTC))
    world.publish(second)
    assert await is_behind(rotation, await rotation.keys())
    report = await follow_issuer(rotation)
    assert not report.waiting
    assert world.log == ["reload gw-1", "reload gw-2"] * 2, "one after the other: first to trust both, then to drop"
    await world.then_all_agree(second)
    assert not await is_behind(rotation, await rotation.keys())


async def test_a_proxy_that_is_cut_off_is_waited_for_before_it_would_be_a_stranger(world: World) -> None:
    rotation = Rotation(world.kube, world.fleet, utc_now)
    before, _ = await world.stored()
    second = Authority.create("second", datetime.now(UTC))
    world.publish(second)
    world.lost.add("gw-2")
    report = await follow_issuer(rotation)
    assert report.waiting
    assert report.owing == ("gw-2",)
    assert (await world.stored())[0].identity.certificate == before.identity.certificate
    world.lost.clear()
    report = await follow_issuer(rotation)
    assert not report.waiting
    await world.then_all_agree(second)


async def test_a_proxy_that_runs_with_less_than_what_is_stored_is_found(world: World) -> None:
    """As after a rotation that was killed between the Secret and the reload."""
    rotation = Rotation(world.kube, world.fleet, utc_now)
    second = Authority.create("second", datetime.now(UTC))
    world.publish(second)
    await following._adopt_leaf(rotation, await following.read_offer(rotation))
    assert await is_behind(rotation, await rotation.keys())
    await follow_issuer(rotation)
    await world.then_all_agree(second)


async def test_a_proxy_that_missed_an_emergency_is_healed_by_a_reload(world: World) -> None:
    """It trusts both, so the controller is let in, and so is whoever was revoked: only a reload ends that."""
    second = Authority.create("second", datetime.now(UTC))
    world.publish(second)
    rotation = Rotation(world.kube, world.fleet, utc_now, emergency=True)
    await following._adopt_leaf(rotation, await following.read_offer(rotation))
    world.lost.add("gw-2")
    assert (await follow_issuer(rotation)).owing == ("gw-2",)
    world.lost.clear()
    world.log.clear()
    controller, proxies = await world.stored()
    left = [proxy for proxy in await world.proxies() if proxy.name == "gw-2"]
    assert (await prove_entry(controller)(left[0])).holds
    assert (await prove_trust(proxies.bundle, exactly=True)(left[0])).fault
    (work,) = await heal_identities(world.kube, world.fleet, left)
    assert (work.owes, work.reloads) == (False, 1)
    assert world.log == ["reload gw-2"]
    await world.then_all_agree(second)
