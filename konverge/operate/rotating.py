"""Rotates the certificates of a fleet without a failed call: trust both, reissue, switch, retire.

Each step stores what it needs, brings it into force on every proxy, and proves it by handshakes before the next
begins; :func:`konverge.decide.rotating.find_blockers` says what forbids one. Invariant: at every moment every proxy
trusts the certificate that the controller shows, and the controller trusts the certificate that every proxy shows.
In an emergency that holds for the proxies that can be reached; the others are taken out of traffic.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from konverge.decide.rotating import Blocker, StoredIdentities, count_at_once, find_blockers
from konverge.errors import VerificationFailed
from konverge.kube.client import KubeClient
from konverge.model.fleet import Fleet
from konverge.model.proxy import Proxy
from konverge.model.rotation import ProxyIdentity, ProxyWork, RotationStep, StepReport
from konverge.operate.attesting import quarantine
from konverge.operate.clock import Clock, utc_now
from konverge.operate.connecting import probe_token
from konverge.operate.discovering import discover_proxies
from konverge.operate.gathering import gather_all
from konverge.operate.identities import (
    Authorities,
    FleetKeys,
    authority_files,
    create_authority,
    issue_controller,
    issue_proxies,
    load_keys,
    open_store,
    with_bundle,
)
from konverge.operate.observing import Observer, issue_probe
from konverge.operate.proving import (
    Proof,
    Seen,
    Sessions,
    prove_all,
    prove_entry,
    prove_refusal,
    prove_serial,
    prove_trust,
)
from konverge.operate.reloading import Distribution, Progress, distribute, find_out
from konverge.operate.restarting import restart_proxies
from konverge.operate.returning import find_spare
from konverge.operate.settling import wait_until_shown
from konverge.pki.authority import Authority
from konverge.pki.bundle import TrustBundle, build_bundle
from konverge.pki.files import IdentityFiles
from konverge.pki.inspecting import CLOCK_SKEW, Certificate, find_renewal


@dataclass(frozen=True, slots=True)
class Rotation:
    """What the steps of one rotation share."""

    kube: KubeClient
    fleet: Fleet
    clock: Clock = utc_now
    since: datetime | None = None
    """Leaves issued before this moment are issued anew; None renews only what is due."""
    emergency: bool = False
    """Nobody who is out of reach is waited for."""
    on_progress: Progress | None = field(default=None, repr=False)

    async def keys(self) -> FleetKeys:
        """Read the stored identities as they are now."""
        return await load_keys(self.kube, self.fleet, self.clock)

    async def proxies(self) -> list[Proxy]:
        """Find the proxies as they are now."""
        return await discover_proxies(self.kube, self.fleet)

    async def observe(self, keys: FleetKeys) -> tuple[StoredIdentities, list[ProxyIdentity]]:
        """Look at what is stored and at every proxy."""
        observer = Observer.of(keys, self.clock)
        return observer.stored, await observer.look(await self.proxies())


async def prepare(rotation: Rotation) -> StepReport:
    """Make a successor of the authority and store it beside the one in force."""
    keys, now = await rotation.keys(), rotation.clock()
    if keys.authorities.successor is not None:
        return StepReport(step=RotationStep.PREPARE, message="a successor exists")
    successor = create_authority(rotation.fleet, now)
    await _store_authorities(rotation, Authorities(keys.authorities.current, successor, keys.authorities.version))
    return StepReport(step=RotationStep.PREPARE, message=f"{successor.certificate.subject} is stored")


async def trust_both(rotation: Rotation) -> StepReport:
    """Let proxies and controller trust both authorities; proven with a throw-away certificate of the new one."""
    keys = await rotation.keys()
    successor = _require_successor(keys)
    both = await _store_both(rotation, keys, successor)
    works = await bring_into_force(rotation, prove_entry(issue_probe(successor, both, rotation.clock)))
    return _report(RotationStep.TRUST_BOTH, works, "proxies let certificates of both authorities in")


async def reissue(rotation: Rotation) -> StepReport:
    """Give the proxies a new certificate of the issuer in force; proven by the serial that each shows."""
    await _refuse_early(rotation, RotationStep.REISSUE)
    return await _renew_proxies(rotation, RotationStep.REISSUE)


async def replace(rotation: Rotation) -> StepReport:
    """Trust both and reissue with one reload; the controller trusts both before the first proxy changes."""
    keys = await rotation.keys()
    await _store_both(rotation, keys, _require_successor(keys), proxies=False)
    report = await _renew_proxies(rotation, RotationStep.REPLACE)
    if rotation.emergency:
        await quarantine(rotation.kube, rotation.fleet, await rotation.proxies(), report, rotation.clock)
    return report


async def switch(rotation: Rotation) -> StepReport:
    """Give the controller a new certificate after every proxy has let a certificate of its issuer in.

    While a proxy that does not know the new authority is out of reach, the controller keeps to the old one.
    """
    blockers = await _refuse_early(rotation, RotationStep.SWITCH)
    keys = await rotation.keys()
    files = keys.controller.files
    if files.identity.certificate.issuer == keys.authorities.issuer.certificate.subject:
        blockers = ()
    issuer = keys.authorities.current if blockers else keys.authorities.issuer
    if not _is_current(rotation, files.identity.certificate, issuer, anew=not blockers):
        files = issue_controller(rotation.fleet, issuer, files.bundle, rotation.clock())
    works = await require_entry(rotation, files)
    if files is not keys.controller.files:
        store = open_store(rotation.kube, rotation.fleet)
        await store.store(rotation.fleet.controller_secret, files.data, version=keys.controller.version)
    await wait_until_shown(rotation.kube, rotation.fleet, files.identity.certificate.serial)
    if blockers:
        return _wait(RotationStep.SWITCH, blockers, "the controller keeps a certificate of the old authority")
    message = f"the controller shows serial {files.identity.certificate.serial}"
    return StepReport(step=RotationStep.SWITCH, message=message, proxies=tuple(works))


async def retire(rotation: Rotation) -> StepReport:
    """Take the old authority out of every bundle; proven by a refusal of its certificates from each proxy.

    A session that a proxy gave while the old certificate was welcome is tried too.
    """
    keys, now = await rotation.keys(), rotation.clock()
    old, successor = keys.authorities.current, _require_successor(keys)
    if blockers := await _refuse_early(rotation, RotationStep.RETIRE):
        return _wait(RotationStep.RETIRE, blockers, f"{old.certificate.subject} is not retired")
    only = build_bundle(successor.identity.chain[:1], now)
    probe = issue_probe(old, only, rotation.clock)
    sessions = Sessions(probe)
    await gather_all(sessions.open(proxy) for proxy in await rotation.proxies())
    await _store_bundles(rotation, keys, only)
    files = (await rotation.keys()).controller.files
    proof = prove_all(prove_refusal(probe), sessions.prove_refused, prove_entry(files))
    report = _report(
        RotationStep.RETIRE,
        await bring_into_force(rotation, proof),
        f"proxies refuse certificates of {old.certificate.subject}",
    )
    if rotation.emergency:
        await quarantine(rotation.kube, rotation.fleet, await rotation.proxies(), report, rotation.clock)
    elif report.owing:
        return report.model_copy(update={"waiting": True})
    await _store_authorities(rotation, Authorities(successor, None, keys.authorities.version))
    return report


ROTATION_STEPS: dict[RotationStep, Callable[[Rotation], Awaitable[StepReport]]] = {
    RotationStep.PREPARE: prepare,
    RotationStep.TRUST_BOTH: trust_both,
    RotationStep.REISSUE: reissue,
    RotationStep.REPLACE: replace,
    RotationStep.SWITCH: switch,
    RotationStep.RETIRE: retire,
}


async def run_step(rotation: Rotation, step: RotationStep) -> StepReport:
    """Do one step and return what it did, with the seconds it took."""
    started = time.monotonic()
    report = await ROTATION_STEPS[step](rotation)
    return report.model_copy(update={"seconds": round(time.monotonic() - started, 2)})


async def _store_both(
    rotation: Rotation, keys: FleetKeys, successor: Authority, *, proxies: bool = True
) -> TrustBundle:
    current = keys.authorities.current
    both = build_bundle((*current.identity.chain[:1], *successor.identity.chain[:1]), rotation.clock())
    await _store_bundles(rotation, keys, both, proxies=proxies)
    return both


async def _renew_proxies(rotation: Rotation, step: RotationStep) -> StepReport:
    """Store a new certificate for the proxies where the stored one is not current, and bring it into force.

    With two authorities its bundle holds both, and that the new one is let in is part of the proof.
    """
    keys, now = await rotation.keys(), rotation.clock()
    kept, known, issuer = keys.proxies, keys.authorities, keys.authorities.issuer
    files = kept.files
    if known.successor is not None:
        trust = build_bundle((*known.current.identity.chain[:1], *issuer.identity.chain[:1]), now)
        files = files if files.bundle.fingerprints == trust.fingerprints else with_bundle(files, trust, now)
    if not _is_current(rotation, files.identity.certificate, issuer):
        files = issue_proxies(rotation.fleet, issuer, files.bundle, now)
    if files is not kept.files:
        store = open_store(rotation.kube, rotation.fleet)
        await store.store(rotation.fleet.proxy_secret, files.data, version=kept.version)
    serial = files.identity.certificate.serial
    proof = prove_all(prove_serial(keys.controller.files, serial), prove_trust(files.bundle, exactly=True))
    if known.successor is not None:
        trusted = keys.controller.files.bundle
        proof = prove_all(proof, prove_entry(issue_probe(known.successor, trusted, rotation.clock)))
    return _report(step, await bring_into_force(rotation, proof), f"proxies show serial {serial}")


async def bring_into_force(rotation: Rotation, proof: Proof) -> list[ProxyWork]:
    """Bring the stored files into force the way the fleet wants it."""
    files, fleet = (await rotation.keys()).proxies.files, rotation.fleet
    proxies = await rotation.proxies()
    spare = await find_spare(rotation.kube, fleet, len(proxies)) if rotation.emergency else 0
    what = Distribution(
        rotation.kube,
        files,
        proof,
        batch=max(spare, _count_at_once(fleet, proxies)),
        spare=spare,
        token=probe_token(fleet),
        stragglers=rotation.emergency,
        on_progress=rotation.on_progress,
    )
    if fleet.spec.identity.reload == "restart":
        return await restart_proxies(fleet, what)
    return await distribute(proxies, what)


def _count_at_once(fleet: Fleet, proxies: Sequence[Proxy]) -> int:
    share = fleet.spec.identity.reloads_at_once
    return count_at_once(share, len(proxies), sum(proxy.ready for proxy in proxies))


async def _store_bundles(rotation: Rotation, keys: FleetKeys, bundle: TrustBundle, *, proxies: bool = True) -> None:
    """Store a bundle for both sides; the controller first when trust grows, so that it never meets a stranger."""
    store, now, fleet = open_store(rotation.kube, rotation.fleet), rotation.clock(), rotation.fleet
    pairs = [(fleet.controller_secret, keys.controller)]
    if proxies:
        pairs.append((fleet.proxy_secret, keys.proxies))
    for name, kept in pairs:
        if kept.files.bundle.fingerprints != bundle.fingerprints:
            await store.store(name, with_bundle(kept.files, bundle, now).data, version=kept.version)


async def _store_authorities(rotation: Rotation, authorities: Authorities) -> None:
    store = open_store(rotation.kube, rotation.fleet)
    await store.store(rotation.fleet.authority_secret, authority_files(authorities), version=authorities.version)


def _require_successor(keys: FleetKeys) -> Authority:
    if keys.authorities.successor is None:
        raise VerificationFailed(
            "There is no successor of the authority; the rotation has to begin with `prepare`",
            reason="NoSuccessor",
            hint="reference/errors.md#no-successor",
        )
    return keys.authorities.successor


def _is_current(rotation: Rotation, leaf: Certificate, issuer: Authority, *, anew: bool = True) -> bool:
    """Whether a leaf is of the issuer in force, not due, and not older than the rotation; else it is issued anew."""
    if leaf.issuer != issuer.certificate.subject or rotation.clock() >= find_renewal(leaf):
        return False
    return not anew or rotation.since is None or leaf.not_before + CLOCK_SKEW >= rotation.since


async def require_entry(rotation: Rotation, files: IdentityFiles) -> list[ProxyWork]:
    """Prove that every proxy that answers lets the controller's next certificate in."""
    proof, proxies = prove_entry(files), await rotation.proxies()
    found: list[Seen] = await gather_all(find_out(proof, proxy) for proxy in proxies)
    works = [
        ProxyWork(proxy=proxy.name, owes=not seen.holds, seen=seen.fault)
        for proxy, seen in zip(proxies, found, strict=True)
    ]
    refusing = [proxy.name for proxy, seen in zip(proxies, found, strict=True) if not seen.holds and seen.reachable]
    if refusing and not (rotation.emergency and len(refusing) < len(proxies)):
        faults = {work.proxy: work.seen for work in works}
        raise _not_let_in([f"{name} ({faults[name]})" for name in refusing])
    return works


def _not_let_in(names: Sequence[str]) -> VerificationFailed:
    return VerificationFailed(
        f"Not let in by: {', '.join(names)}", reason="NotLetIn", hint="reference/errors.md#not-let-in"
    )


async def _refuse_early(rotation: Rotation, step: RotationStep) -> tuple[Blocker, ...]:
    """Raise where a proxy that answers, or the controller, forbids a step; return those that are out of reach."""
    keys = await rotation.keys()
    stored, proxies = await rotation.observe(keys)
    blockers = find_blockers(step, stored, proxies, emergency=rotation.emergency)
    present = [str(blocker) for blocker in blockers if not blocker.absent]
    if not present:
        return blockers
    if step is RotationStep.RETIRE:
        raise VerificationFailed(
            f"The old authority is still needed by {', '.join(present)}; it is not retired",
            reason="AuthorityInUse",
            hint="reference/errors.md#authority-in-use",
        )
    raise _not_let_in(present)


def _wait(step: RotationStep, blockers: Sequence[Blocker], consequence: str) -> StepReport:
    names = ", ".join(map(str, blockers))
    works = tuple(ProxyWork(proxy=blocker.name, owes=True, seen=blocker.why) for blocker in blockers)
    return StepReport(step=step, message=f"waits for {names}; {consequence}", waiting=True, proxies=works)


def _report(step: RotationStep, works: Sequence[ProxyWork], what: str) -> StepReport:
    owing = [work for work in works if work.owes]
    message = f"{len(works) - len(owing)} {what}"
    if owing:
        message += "; owed by " + ", ".join(f"{work.proxy} ({work.seen})" for work in owing)
    return StepReport(step=step, message=message, proxies=tuple(works))
