"""Rotation: killed at any write of any step and started again it ends; nobody ever meets a stranger on the way."""

from __future__ import annotations

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_kube import Call, FakeKube, Killed

from konverge.decide.rotating import plan_rotation
from konverge.errors import VerificationFailed
from konverge.kube.resources import PROXY_FLEETS, SECRETS
from konverge.model.fleet import FleetSpec
from konverge.model.proxy import Proxy
from konverge.model.rotation import RotationKind, RotationStep
from konverge.operate import rotating
from konverge.operate.fleets import parse_fleet
from konverge.operate.identities import FleetKeys, ensure_identity, load_keys
from konverge.operate.reloading import Proof, Reload
from konverge.operate.rotating import ROTATION_STEPS, Rotation, list_certificates, observe
from konverge.pki.authority import Identity
from konverge.pki.bundle import TrustBundle
from konverge.pki.files import CONTROLLER_BUNDLE_FILE, IdentityFiles, read_files
from konverge.pki.handshake import Handshake, HandshakeReason

START = datetime(2026, 5, 1, tzinfo=UTC)


class Fleet:
    """Proxies that hold the files of their last reload, and TLS between them and the stored controller."""

    def __init__(self, proxies: int = 3) -> None:
        self.kube = FakeKube()
        body = self.kube.put(
            PROXY_FLEETS, {"metadata": {"name": "shop"}, "spec": FleetSpec(proxy_service="s").to_json()}
        )
        self.fleet = parse_fleet(body)
        self.now = START
        self.in_force: dict[str, IdentityFiles] = {}
        self.proxies = [Proxy(name=f"p{i}", namespace="default", ip=f"ip{i}") for i in range(proxies)]
        self.down: set[str] = set()
        self.strangers: list[str] = []

    async def open(self) -> Fleet:
        await ensure_identity(self.kube, self.fleet, self.clock)
        keys = await self.keys()
        for proxy in self.proxies:
            self.in_force[proxy.ip] = keys.proxies.files
        self.kube.after.append(self._note_strangers)
        return self

    def clock(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    async def keys(self) -> FleetKeys:
        return await load_keys(self.kube, self.fleet, self.clock)

    async def rotate(self, kind: RotationKind) -> list[str]:
        """What the flow does."""
        done = []
        for step in plan_rotation(kind, observe(await self.keys(), self.clock)):
            await self.step(step)
            done.append(step.value)
        return done

    async def step(self, step: RotationStep) -> str:
        return await ROTATION_STEPS[step](Rotation(self.kube, self.fleet, self.clock, since=self.since))

    since: datetime | None = START + timedelta(minutes=1)

    # what the wire does

    async def prove(self, ip: str, _port: int, _name: str, context: tuple[TrustBundle, Identity]) -> Handshake:
        """Decide as TLS does: we verify the server first, then it verifies us."""
        bundle, identity = context
        if ip in self.down:
            return Handshake(HandshakeReason.UNREACHABLE, "connection refused")
        shown = self.in_force[ip].identity.certificate
        if shown.issuer not in {a.subject for a in bundle.authorities}:
            return Handshake(HandshakeReason.SERVER_UNTRUSTED, "untrusted", shown)
        trusted = {a.subject for a in self.in_force[ip].bundle.authorities}
        if identity.certificate.issuer not in trusted:
            return Handshake(HandshakeReason.CLIENT_REFUSED, "refused", shown, verified=True)
        return Handshake(HandshakeReason.ACCEPTED, "", shown, "TLSv1.3", verified=True, accepted=True)

    async def distribute(self, kube: Any, proxies: list[Proxy], files: IdentityFiles, proof: Proof) -> list[Reload]:
        """Reload a proxy whose proof does not hold; each reload is a moment at which everything may end."""
        for proxy in proxies:
            if await proof(proxy):
                await kube.request("GET", "/api/v1/namespaces/default/secrets/" + self.fleet.proxy_secret)
                self.in_force[proxy.ip] = files
                self._note_strangers(Call("RELOAD", SECRETS, proxy.name))
            seen = await proof(proxy)
            if seen:
                raise VerificationFailed(f"proxy {proxy.name}: {seen}", reason="NotInForce")
        return []

    def _note_strangers(self, call: Call) -> None:
        """The controller as stored must get on with every proxy as it runs, at every moment."""
        if not call.writes:
            return
        files = self._stored_controller()
        for proxy in self.proxies:
            held = self.in_force[proxy.ip]
            ours, theirs = files.identity.certificate.issuer, held.identity.certificate.issuer
            if ours not in {a.subject for a in held.bundle.authorities}:
                self.strangers.append(f"{proxy.name} does not know the controller after {call}")
            if theirs not in {a.subject for a in files.bundle.authorities}:
                self.strangers.append(f"the controller does not know {proxy.name} after {call}")

    def _stored_controller(self) -> IdentityFiles:
        data = self.kube.one(SECRETS, self.fleet.controller_secret)["data"]
        return read_files({k: base64.b64decode(v) for k, v in data.items()}, self.now, CONTROLLER_BUNDLE_FILE)


@pytest.fixture
async def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    opened = Fleet()

    async def proxies(*_: Any) -> list[Proxy]:
        return opened.proxies

    monkeypatch.setattr(rotating, "build_client_context", lambda bundle, identity: (bundle, identity))
    monkeypatch.setattr(rotating, "prove", opened.prove)
    monkeypatch.setattr(rotating, "distribute", opened.distribute)
    monkeypatch.setattr(rotating, "discover_proxies", proxies)
    return await opened.open()


async def test_an_authority_is_rotated_in_five_steps(fleet: Fleet) -> None:
    before = await fleet.keys()
    assert await fleet.rotate(RotationKind.AUTHORITY) == [s.value for s in RotationStep]
    after = await fleet.keys()
    assert fleet.strangers == []
    assert after.authorities.successor is None
    new, old = after.authorities.current.certificate, before.authorities.current.certificate
    assert new.fingerprint != old.fingerprint
    for files in (after.controller.files, after.proxies.files, *fleet.in_force.values()):
        assert files.identity.certificate.issuer == new.subject
        assert files.bundle.fingerprints == {new.fingerprint}


async def test_leaves_are_rotated_under_the_same_authority(fleet: Fleet) -> None:
    before = await fleet.keys()
    assert await fleet.rotate(RotationKind.LEAF) == ["reissue", "switch"]
    after = await fleet.keys()
    assert fleet.strangers == []
    assert after.authorities.current.certificate == before.authorities.current.certificate
    assert {f.identity.certificate.serial for f in fleet.in_force.values()} == {
        after.proxies.files.identity.certificate.serial
    }
    assert after.proxies.files.identity.certificate.serial != before.proxies.files.identity.certificate.serial


async def test_nothing_due_is_nothing_done(fleet: Fleet) -> None:
    before = list(fleet.kube.writes)
    assert await fleet.rotate(RotationKind.AUTO) == []
    assert fleet.kube.writes == before


async def test_what_is_due_is_renewed(fleet: Fleet) -> None:
    fleet.since = None
    fleet.now += timedelta(days=25)
    assert await fleet.rotate(RotationKind.AUTO) == ["reissue", "switch"]
    fleet.now = START + timedelta(days=46)
    assert await fleet.rotate(RotationKind.AUTO) == ["reissue", "switch"]
    assert await fleet.rotate(RotationKind.AUTO) == []


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", range(9))
@pytest.mark.parametrize("kind", [RotationKind.LEAF, RotationKind.AUTHORITY])
async def test_killed_at_any_write_it_goes_on_and_ends(
    fleet: Fleet, kind: RotationKind, write: int, after: bool
) -> None:
    fleet.kube.kill_at(write, after=after)
    killed = False
    try:
        await fleet.rotate(kind)
    except Killed:
        killed = True
    fleet.kube.heal()
    fleet.kube.after.append(fleet._note_strangers)
    old = await fleet.keys()
    await fleet.rotate(RotationKind.AUTO if old.authorities.successor else kind)
    assert fleet.strangers == []
    keys = await fleet.keys()
    assert keys.authorities.successor is None
    current = keys.authorities.current.certificate
    for files in (keys.controller.files, keys.proxies.files, *fleet.in_force.values()):
        assert files.identity.certificate.issuer == current.subject
        assert files.bundle.fingerprints == {current.fingerprint}
    assert killed or write >= (2 if kind is RotationKind.LEAF else 8)


@pytest.mark.parametrize("step", [RotationStep.TRUST_BOTH, RotationStep.REISSUE, RotationStep.RETIRE])
async def test_a_proxy_that_is_down_stops_the_step_and_is_named_and_it_goes_on_later(
    fleet: Fleet, step: RotationStep
) -> None:
    for earlier in list(RotationStep)[: list(RotationStep).index(step)]:
        await fleet.step(earlier)
    fleet.down.add("ip1")
    with pytest.raises(VerificationFailed, match="p1"):
        await fleet.step(step)
    assert fleet.strangers == []
    fleet.down.clear()
    await fleet.rotate(RotationKind.AUTO)
    assert fleet.strangers == []
    assert (await fleet.keys()).authorities.successor is None


async def test_the_controller_does_not_switch_before_every_proxy_lets_it_in(fleet: Fleet) -> None:
    for step in (RotationStep.PREPARE, RotationStep.TRUST_BOTH, RotationStep.REISSUE):
        await fleet.step(step)
    before = await fleet.keys()
    fleet.down.add("ip2")
    with pytest.raises(VerificationFailed, match=r"Not let in by: p2 \(connection refused\)") as caught:
        await fleet.step(RotationStep.SWITCH)
    assert caught.value.reason == "NotLetIn"
    serial = (await fleet.keys()).controller.files.identity.certificate.serial
    assert serial == before.controller.files.identity.certificate.serial


@pytest.mark.parametrize(
    ("last", "holders"),
    [(RotationStep.TRUST_BOTH, ["the controller", "p0", "p1", "p2"]), (RotationStep.REISSUE, ["the controller"])],
)
async def test_an_early_retirement_is_refused_with_the_names_of_the_holders(
    fleet: Fleet, last: RotationStep, holders: list[str]
) -> None:
    for step in list(RotationStep)[: list(RotationStep).index(last) + 1]:
        await fleet.step(step)
    before = list(fleet.kube.writes)
    with pytest.raises(VerificationFailed) as caught:
        await fleet.step(RotationStep.RETIRE)
    assert caught.value.reason == "AuthorityInUse"
    assert caught.value.message == f"The old authority is still needed by {', '.join(holders)}; it is not retired"
    assert fleet.kube.writes == before


async def test_a_proxy_that_missed_the_reissue_holds_the_retirement_up(fleet: Fleet) -> None:
    old = fleet.in_force["ip1"]
    for step in list(RotationStep)[:4]:
        await fleet.step(step)
    both = fleet.in_force["ip1"].bundle
    fleet.in_force["ip1"] = IdentityFiles(old.identity, both)
    with pytest.raises(VerificationFailed, match="still needed by p1; it is not retired"):
        await fleet.step(RotationStep.RETIRE)


@pytest.mark.parametrize("step", [RotationStep.TRUST_BOTH, RotationStep.RETIRE])
async def test_a_step_without_a_successor_is_refused(fleet: Fleet, step: RotationStep) -> None:
    with pytest.raises(VerificationFailed) as caught:
        await fleet.step(step)
    assert caught.value.reason == "NoSuccessor"


async def test_two_rotations_at_once_do_not_make_two_successors(fleet: Fleet) -> None:
    results = await asyncio.gather(
        fleet.step(RotationStep.PREPARE), fleet.step(RotationStep.PREPARE), return_exceptions=True
    )
    failed = [r for r in results if isinstance(r, BaseException)]
    assert [getattr(f, "reason", "") for f in failed] == ["Conflict"]
    assert await fleet.step(RotationStep.PREPARE) == "a successor exists"


async def test_what_is_shown_to_people_holds_no_key(fleet: Fleet) -> None:
    await fleet.step(RotationStep.PREPARE)
    keys = await fleet.keys()
    views = list_certificates(keys, fleet.clock)
    assert [v.role for v in views] == ["authority", "next authority", "controller", "proxies"]
    assert "PRIVATE" not in str([v.to_json() for v in views])
    private = keys.controller.files.identity.key.to_pem().decode().splitlines()[1]
    assert private not in repr(keys)
