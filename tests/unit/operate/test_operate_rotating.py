"""Rotation: killed at any write of any step and started again it ends; nobody ever meets a stranger on the way."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_kube import Call, FakeKube, Killed

from konverge.decide.rotating import AUTHORITY_STEPS, SHORT_STEPS, plan_rotation
from konverge.errors import Unavailable, VerificationFailed
from konverge.kube.resources import PODS, PROXY_FLEETS, PROXY_INSTANCES, SECRETS
from konverge.kube.streaming import ExecResult
from konverge.model.fleet import FleetSpec
from konverge.model.proxy import Proxy
from konverge.model.rotation import RotationKind, RotationStep, StepReport
from konverge.operate import observing, proving, reloading, rotating
from konverge.operate.fleets import parse_fleet
from konverge.operate.healing import heal_identities
from konverge.operate.identities import FleetKeys, ensure_identity, load_keys
from konverge.operate.observing import Observer, list_certificates
from konverge.operate.rotating import Rotation, run_step
from konverge.pki.authority import Identity
from konverge.pki.bundle import TrustBundle
from konverge.pki.files import CONTROLLER_BUNDLE_FILE, PROXY_BUNDLE_FILE, IdentityFiles, read_files
from konverge.pki.handshake import Handshake, HandshakeReason
from konverge.pki.resuming import Visit

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
        self.stubborn: set[str] = set()
        """Proxies whose reload is refused."""
        self.strangers: list[str] = []
        self.abandoned: set[str] = set()
        """Proxies that an emergency has left behind."""
        self.reports: list[StepReport] = []
        for proxy in self.proxies:
            self.kube.put(PODS, {"metadata": {"name": proxy.name}, "status": {"conditions": []}})

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

    async def rotate(self, kind: RotationKind, revoked: str = "") -> list[str]:
        """What the flow does."""
        done = []
        keys = await self.keys()
        stored, seen = await Rotation(self.kube, self.fleet, self.clock).observe(keys)
        self.reports = []
        for step in plan_rotation(kind, stored, seen, revoked=revoked):
            report = await self.step(step, emergency=kind is RotationKind.EMERGENCY)
            self.reports.append(report)
            done.append(step.value)
            if report.waiting:
                break
        return done

    async def step(self, step: RotationStep, *, emergency: bool = False) -> StepReport:
        rotation = Rotation(self.kube, self.fleet, self.clock, since=self.since, emergency=emergency)
        return await run_step(rotation, step)

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

    async def visit(self, ip: str, port: int, name: str, context: Any, *, session: Any = None) -> Visit:
        """A session is kept by the name of the certificate's issuer and never resumed: caches are off."""
        shown = await self.prove(ip, port, name, context)
        if shown.reason is HandshakeReason.UNREACHABLE:
            raise Unavailable("refused")
        return Visit(reused=False, refusal="" if shown.accepted else "The SSL certificate error")

    async def read_trusted_names(self, ip: str, _port: int, _name: str) -> frozenset[bytes]:
        if ip in self.down:
            raise Unavailable("connection refused")
        return frozenset(one.subject.public_bytes() for one in self.in_force[ip].bundle.certificates)

    async def exec(self, _kube: Any, pod: str, _namespace: str, _container: str, command: list[str]) -> ExecResult:
        """Project the stored files at once; a reload takes them, and each is a moment at which all may end."""
        await self.kube.request("GET", "/api/v1/namespaces/default/secrets/" + self.fleet.proxy_secret)
        files = self._stored(self.fleet.proxy_secret, PROXY_BUNDLE_FILE)
        if command[0] == "cat":
            return ExecResult(0, b"".join(files.data[path.rpartition("/")[2]] for path in command[1:]), b"")
        if pod in self.stubborn:
            return ExecResult(1, b"", b"nginx: [emerg] cannot load certificate")
        self.in_force[f"ip{pod[1:]}"] = files
        self._note_strangers(Call("RELOAD", SECRETS, pod))
        return ExecResult(0, b"", b"")

    def _note_strangers(self, call: Call) -> None:
        """The controller as stored must get on with every proxy as it runs, at every moment."""
        if not call.writes:
            return
        files = self._stored(self.fleet.controller_secret, CONTROLLER_BUNDLE_FILE)
        for proxy in self.proxies:
            if proxy.name in self.abandoned:
                continue
            held = self.in_force[proxy.ip]
            ours, theirs = files.identity.certificate.issuer, held.identity.certificate.issuer
            if ours not in {a.subject for a in held.bundle.authorities}:
                self.strangers.append(f"{proxy.name} does not know the controller after {call}")
            if theirs not in {a.subject for a in files.bundle.authorities}:
                self.strangers.append(f"the controller does not know {proxy.name} after {call}")

    def _stored(self, name: str, bundle_file: str) -> IdentityFiles:
        data = self.kube.one(SECRETS, name)["data"]
        return read_files({k: base64.b64decode(v) for k, v in data.items()}, self.now, bundle_file)

    async def then_only(self, *, left_out: tuple[str, ...] = ()) -> None:
        """One authority is in force everywhere; nobody met a stranger on the way."""
        assert self.strangers == []
        keys = await self.keys()
        assert keys.authorities.successor is None
        current = keys.authorities.current.certificate
        running = [files for ip, files in self.in_force.items() if f"p{ip[2:]}" not in left_out]
        for files in (keys.controller.files, keys.proxies.files, *running):
            assert files.identity.certificate.issuer == current.subject
            assert files.bundle.fingerprints == {current.fingerprint}


@pytest.fixture
async def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    opened = Fleet()

    async def proxies(*_: Any) -> list[Proxy]:
        return opened.proxies

    for module in (observing, proving):
        monkeypatch.setattr(module, "build_client_context", lambda bundle, identity: (bundle, identity))
        monkeypatch.setattr(module, "prove", opened.prove)
        monkeypatch.setattr(module, "read_trusted_names", opened.read_trusted_names)
    monkeypatch.setattr(proving, "visit", opened.visit)
    monkeypatch.setattr(reloading.streaming, "exec", opened.exec)
    monkeypatch.setattr(rotating, "discover_proxies", proxies)
    for module, name in ((reloading, "PAUSE"), (reloading, "ABSENT_PAUSE"), (observing, "PAUSE")):
        monkeypatch.setattr(module, name, 0.0)
    monkeypatch.setattr(reloading, "FORCE_SECONDS", 0.02)
    return await opened.open()


async def test_an_authority_is_rotated_in_five_steps(fleet: Fleet) -> None:
    before = await fleet.keys()
    assert await fleet.rotate(RotationKind.AUTHORITY) == [s.value for s in AUTHORITY_STEPS]
    new, old = (await fleet.keys()).authorities.current.certificate, before.authorities.current.certificate
    assert new.fingerprint != old.fingerprint
    await fleet.then_only()
    assert [r.owing for r in fleet.reports] == [()] * 5


@pytest.mark.parametrize(
    ("reloads", "serving", "rounds"), [("10%", 20, [1, *[2] * 9, 1]), (5, 20, [1, 5, 5, 5, 4]), ("100%", 2, [1] * 20)]
)
async def test_as_many_are_reloaded_at_once_as_the_fleet_wants(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, reloads: int | str, serving: int, rounds: list[int]
) -> None:
    found, busy = list[int](), set[str]()

    async def note_reload(*words: Any) -> ExecResult:
        if words[-1][0] == "kong":
            found.extend([] if busy else [0])
            busy.add(words[1])
            found[-1] += 1
            for _ in range(200):
                await asyncio.sleep(0)
            busy.discard(words[1])
        return await fleet.exec(*words)

    monkeypatch.setattr(reloading.streaming, "exec", note_reload)
    fleet.proxies = [Proxy(name=f"p{i}", namespace="default", ip=f"ip{i}", ready=i < serving) for i in range(20)]
    fleet.in_force = {proxy.ip: fleet.in_force["ip0"] for proxy in fleet.proxies}
    identity = fleet.fleet.spec.identity.replace(reloads_at_once=reloads)
    fleet.fleet = fleet.fleet.replace(spec=fleet.fleet.spec.replace(identity=identity))
    report = await fleet.step(RotationStep.REISSUE)
    assert found == rounds
    assert [work.reloads for work in report.proxies] == [1] * 20


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
    await fleet.then_only()
    assert killed or write >= (2 if kind is RotationKind.LEAF else 8)


@pytest.mark.parametrize("write", range(7))
async def test_an_emergency_killed_at_any_write_goes_on(fleet: Fleet, write: int) -> None:
    revoked = (await fleet.keys()).authorities.current.certificate.fingerprint
    fleet.kube.kill_at(write, after=True)
    with suppress(Killed):
        await fleet.rotate(RotationKind.EMERGENCY, revoked)
    fleet.kube.heal()
    fleet.kube.after.append(fleet._note_strangers)
    await fleet.rotate(RotationKind.EMERGENCY, revoked)
    await fleet.then_only()
    assert revoked not in (await fleet.keys()).controller.files.bundle.fingerprints
    assert await fleet.rotate(RotationKind.EMERGENCY, revoked) == [], "the same again has nothing left to do"


async def test_an_emergency_reloads_each_proxy_twice_only(fleet: Fleet) -> None:
    assert await fleet.rotate(RotationKind.EMERGENCY) == [s.value for s in SHORT_STEPS]
    await fleet.then_only()
    assert sum(work.reloads for report in fleet.reports for work in report.proxies) == 2 * len(fleet.proxies)


async def test_a_compromised_successor_is_replaced_after_the_begun_rotation(fleet: Fleet) -> None:
    for step in AUTHORITY_STEPS[:3]:
        await fleet.step(step)
    successor = (await fleet.keys()).authorities.successor
    assert successor is not None
    revoked = successor.certificate.fingerprint
    done = await fleet.rotate(RotationKind.EMERGENCY, revoked)
    assert done == ["replace", "switch", "retire", *(s.value for s in SHORT_STEPS)]
    await fleet.then_only()
    assert (await fleet.keys()).authorities.current.certificate.fingerprint != revoked


@pytest.mark.parametrize("kind", [RotationKind.LEAF, RotationKind.AUTHORITY])
async def test_a_proxy_that_is_down_owes_and_catches_up(fleet: Fleet, kind: RotationKind) -> None:
    fleet.down.add("ip1")
    before = await fleet.keys()
    done = await fleet.rotate(kind)
    assert fleet.strangers == [], "what is down may come back with what it had"
    assert fleet.reports[-1].owing == ("p1",)
    after = await fleet.keys()
    serials = [k.controller.files.identity.certificate.serial for k in (before, after)]
    if kind is RotationKind.LEAF:
        assert done == ["reissue", "switch"]
        assert serials[0] != serials[1]
    else:
        assert done == ["prepare", "trust-both", "reissue", "switch"], "the old authority stays"
        assert fleet.reports[-1].waiting
        assert serials[0] == serials[1], "p1 knows the old authority only"
        assert "waits for p1 (connection refused)" in fleet.reports[-1].message
    fleet.down.clear()
    fleet.since = None
    assert (await fleet.rotate(RotationKind.AUTO))[0] == "reissue"
    await fleet.then_only()
    assert await fleet.rotate(RotationKind.AUTO) == []


async def test_while_it_waits_the_controllers_leaf_is_renewed_by_the_authority_that_all_know(fleet: Fleet) -> None:
    fleet.down.add("ip1")
    await fleet.rotate(RotationKind.AUTHORITY)
    before = await fleet.keys()
    fleet.since = None
    fleet.now = START + timedelta(days=21)
    await fleet.rotate(RotationKind.AUTO)
    after = await fleet.keys()
    leaves = [k.controller.files.identity.certificate for k in (before, after)]
    assert leaves[0].serial != leaves[1].serial
    assert leaves[0].issuer == leaves[1].issuer == after.authorities.current.certificate.subject
    assert fleet.strangers == []


async def test_a_proxy_that_goes_down_before_the_retirement_holds_it_up(fleet: Fleet) -> None:
    for step in AUTHORITY_STEPS[:4]:
        await fleet.step(step)
    fleet.down.add("ip1")
    report = await fleet.step(RotationStep.RETIRE)
    assert report.waiting
    assert report.owing == ("p1",)
    assert (await fleet.keys()).authorities.successor is not None
    fleet.down.clear()
    await fleet.rotate(RotationKind.AUTO)
    await fleet.then_only()


async def test_a_switched_controller_never_goes_back_while_a_proxy_is_down(fleet: Fleet) -> None:
    for step in AUTHORITY_STEPS[:4]:
        await fleet.step(step)
    before = await fleet.keys()
    fleet.down.add("ip1")
    assert (await fleet.rotate(RotationKind.AUTO))[-1] == "retire"
    assert fleet.reports[-1].waiting
    after = await fleet.keys()
    issuers = [keys.controller.files.identity.certificate.issuer for keys in (before, after)]
    assert issuers[0] == issuers[1] != after.authorities.current.certificate.subject


@pytest.mark.parametrize("how", ["down", "stubborn"])
async def test_an_emergency_leaves_stragglers_behind_and_out_of_traffic(fleet: Fleet, how: str) -> None:
    fleet.abandoned.add("p1")
    (fleet.down if how == "down" else fleet.stubborn).add("ip1" if how == "down" else "p1")
    done = await fleet.rotate(RotationKind.EMERGENCY)
    assert done == [s.value for s in SHORT_STEPS]
    await fleet.then_only(left_out=("p1",))
    gate = fleet.kube.one(PODS, "p1")["status"]["conditions"][0]
    assert (gate["type"], gate["status"], gate["reason"]) == ("konverge.dev/configured", "False", "IdentityOwed")
    assert fleet.kube.one(PODS, "p0")["status"]["conditions"] == []
    assert fleet.kube.one(PROXY_INSTANCES, "p1")["status"]["phase"] == "Quarantined"
    fleet.down.clear()
    fleet.stubborn.clear()
    fleet.since = None
    proxies = [proxy for proxy in fleet.proxies if proxy.name == "p1"]
    assert [w.owes for w in await heal_identities(fleet.kube, fleet.fleet, proxies, fleet.clock)] == [False]
    await fleet.then_only()


async def test_a_proxy_that_still_trusts_the_revoked_authority_is_found_by_the_next_run(fleet: Fleet) -> None:
    """It shows the right certificate and lets the controller in; only the names that it sends give it away."""
    for step in SHORT_STEPS[:3]:
        await fleet.step(step, emergency=True)
    fleet.stubborn.add("p1")
    assert (await fleet.step(RotationStep.RETIRE, emergency=True)).owing == ("p1",)
    fleet.stubborn.clear()
    fleet.since = None
    seen = await Observer.of(await fleet.keys(), fleet.clock).look(fleet.proxies)
    assert [proxy.excess for proxy in seen] == [0, 1, 0]
    assert seen[1].seen == "it still trusts 1 authorities that are not in force any more"
    assert await fleet.rotate(RotationKind.AUTO) == ["reissue"]
    await fleet.then_only()
    assert await fleet.rotate(RotationKind.AUTO) == []


async def test_an_emergency_that_nobody_follows_stops_before_the_controller_is_shut_out(fleet: Fleet) -> None:
    fleet.stubborn |= {"p0", "p1", "p2"}
    with pytest.raises(VerificationFailed) as caught:
        await fleet.rotate(RotationKind.EMERGENCY)
    assert caught.value.reason == "NotLetIn"
    assert fleet.strangers == []


async def test_a_proxy_that_refuses_its_new_files_is_named_and_it_goes_on_later(fleet: Fleet) -> None:
    fleet.stubborn.add("p1")
    with pytest.raises(VerificationFailed, match=r"proxy p1: kong reload ended with 1: nginx: \[emerg\]"):
        await fleet.rotate(RotationKind.AUTHORITY)
    assert fleet.strangers == []
    fleet.stubborn.clear()
    await fleet.rotate(RotationKind.AUTO)
    await fleet.then_only()


@pytest.mark.parametrize(
    ("last", "holders"),
    [
        (
            RotationStep.TRUST_BOTH,
            ["the controller (it holds a certificate of the old authority)"]
            + [f"p{i} (it shows a certificate of the old authority)" for i in range(3)],
        ),
        (RotationStep.REISSUE, ["the controller (it holds a certificate of the old authority)"]),
    ],
)
async def test_an_early_retirement_is_refused_with_the_names_of_the_holders(
    fleet: Fleet, last: RotationStep, holders: list[str]
) -> None:
    for step in AUTHORITY_STEPS[: AUTHORITY_STEPS.index(last) + 1]:
        await fleet.step(step)
    before = list(fleet.kube.writes)
    with pytest.raises(VerificationFailed) as caught:
        await fleet.step(RotationStep.RETIRE)
    assert caught.value.reason == "AuthorityInUse"
    assert caught.value.message == f"The old authority is still needed by {', '.join(holders)}; it is not retired"
    assert fleet.kube.writes == before


@pytest.mark.parametrize("step", [RotationStep.REISSUE, RotationStep.SWITCH])
async def test_a_step_before_its_time_is_refused(fleet: Fleet, step: RotationStep) -> None:
    await fleet.step(RotationStep.PREPARE)
    before = list(fleet.kube.writes)
    with pytest.raises(VerificationFailed, match="it does not trust the new authority") as caught:
        await fleet.step(step)
    assert caught.value.reason == "NotLetIn"
    assert fleet.kube.writes == before


async def test_a_proxy_that_missed_the_reissue_holds_the_retirement_up(fleet: Fleet) -> None:
    old = fleet.in_force["ip1"]
    for step in AUTHORITY_STEPS[:4]:
        await fleet.step(step)
    both = fleet.in_force["ip1"].bundle
    fleet.in_force["ip1"] = IdentityFiles(old.identity, both)
    with pytest.raises(VerificationFailed, match=r"still needed by p1 .*; it is not retired"):
        await fleet.step(RotationStep.RETIRE)


async def test_a_proxy_that_resumes_sessions_is_found_out(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in AUTHORITY_STEPS[:4]:
        await fleet.step(step)

    async def resume(_ip: str, _port: int, _name: str, _context: Any, *, session: Any = None) -> Visit:
        return Visit(reused=session is not None, session=object())  # type: ignore[arg-type]

    monkeypatch.setattr(proving, "visit", resume)
    monkeypatch.setattr(reloading, "PROJECTION_SECONDS", 0.1)
    with pytest.raises(VerificationFailed, match=r"it lets a resumed session of .* in"):
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
    assert (await fleet.step(RotationStep.PREPARE)).message == "a successor exists"


async def test_what_is_shown_to_people_holds_no_key(fleet: Fleet) -> None:
    await fleet.step(RotationStep.PREPARE)
    keys = await fleet.keys()
    seen = await Observer.of(keys, fleet.clock).look(fleet.proxies)
    views = list_certificates(keys, fleet.clock, seen)
    assert [v.role for v in views] == ["authority", "next authority", "controller", "proxies", *["proxy"] * 3]
    assert [v.pod for v in views[4:]] == ["p0", "p1", "p2"]
    assert "PRIVATE" not in str([v.to_json() for v in views])
    private = keys.controller.files.identity.key.to_pem().decode().splitlines()[1]
    assert private not in repr(keys)
