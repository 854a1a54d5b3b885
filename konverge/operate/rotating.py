"""Rotates the certificates of a fleet without a failed call: trust both, reissue, switch, retire.

Each step stores what it needs, brings it into force on every proxy, and proves it by handshakes before the next
begins. Invariant: at every moment every proxy trusts the certificate that the controller shows, and the controller
trusts the certificate that every proxy shows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from konverge.decide.rotating import StoredIdentities
from konverge.errors import VerificationFailed
from konverge.kube.client import KubeClient
from konverge.model.fleet import Fleet
from konverge.model.proxy import Proxy
from konverge.model.rotation import CertificateView, RotationStep
from konverge.operate.clock import Clock, utc_now
from konverge.operate.discovering import discover_proxies
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
from konverge.operate.reloading import Proof, distribute
from konverge.pki.authority import Authority, request_controller
from konverge.pki.bundle import TrustBundle, build_bundle
from konverge.pki.contexts import build_client_context
from konverge.pki.files import IdentityFiles
from konverge.pki.handshake import HandshakeReason, prove
from konverge.pki.inspecting import CLOCK_SKEW, Certificate, find_renewal


@dataclass(frozen=True, slots=True)
class Rotation:
    """What the steps of one rotation share."""

    kube: KubeClient
    fleet: Fleet
    clock: Clock = utc_now
    since: datetime | None = None
    """Leaves issued before this moment are issued anew; None renews only what is due."""

    async def keys(self) -> FleetKeys:
        """Read the stored identities as they are now."""
        return await load_keys(self.kube, self.fleet, self.clock)

    async def proxies(self) -> list[Proxy]:
        """Find the proxies as they are now."""
        return await discover_proxies(self.kube, self.fleet)


def observe(keys: FleetKeys, clock: Clock = utc_now) -> StoredIdentities:
    """Return what the stored identities say, for the decision which step comes next."""
    now, authorities = clock(), keys.authorities
    names = {
        authority.certificate.subject: authority.certificate.fingerprint
        for authority in (authorities.current, authorities.successor)
        if authority is not None
    }
    leaves = (keys.controller.files.identity.certificate, keys.proxies.files.identity.certificate)
    return StoredIdentities(
        current=authorities.current.certificate.fingerprint,
        successor=authorities.successor.certificate.fingerprint if authorities.successor else None,
        controller_bundle=keys.controller.files.bundle.fingerprints,
        proxy_bundle=keys.proxies.files.bundle.fingerprints,
        controller_issuer=names.get(leaves[0].issuer, ""),
        proxy_issuer=names.get(leaves[1].issuer, ""),
        authority_due=now >= find_renewal(authorities.current.certificate),
        leaf_due=any(now >= find_renewal(leaf) for leaf in leaves),
    )


async def prepare(rotation: Rotation) -> str:
    """Make a successor of the authority and store it beside the one in force."""
    keys = await rotation.keys()
    if keys.authorities.successor is not None:
        return "a successor exists"
    successor = create_authority(rotation.fleet, rotation.clock())
    both = Authorities(keys.authorities.current, successor, keys.authorities.version)
    await _store_authorities(rotation, both)
    return f"{successor.certificate.subject} is stored"


async def trust_both(rotation: Rotation) -> str:
    """Let proxies and controller trust both authorities; proven with a throw-away certificate of the new one."""
    keys, now = await rotation.keys(), rotation.clock()
    successor = _require_successor(keys)
    both = build_bundle((*keys.authorities.current.identity.chain[:1], *successor.identity.chain[:1]), now)
    await _store_bundles(rotation, keys, both)
    proof = _proof_of_access(rotation, successor, both, accepted=True)
    await _distribute(rotation, proof)
    return f"{len(await rotation.proxies())} proxies let certificates of both authorities in"


async def reissue(rotation: Rotation) -> str:
    """Give the proxies a new certificate of the issuer in force; proven by the serial that each shows."""
    keys, now = await rotation.keys(), rotation.clock()
    files = keys.proxies.files
    if not _is_current(rotation, files.identity.certificate, keys.authorities.issuer):
        files = issue_proxies(rotation.fleet, keys.authorities.issuer, files.bundle, now)
        store = open_store(rotation.kube, rotation.fleet)
        await store.store(rotation.fleet.proxy_secret, files.data, version=keys.proxies.version)
    serial = files.identity.certificate.serial
    await _distribute(rotation, _proof_of_serial(keys.controller.files, serial))
    return f"{len(await rotation.proxies())} proxies show serial {serial}"


async def switch(rotation: Rotation) -> str:
    """Give the controller a new certificate after every proxy has let a certificate of its issuer in."""
    keys, now = await rotation.keys(), rotation.clock()
    files = keys.controller.files
    if not _is_current(rotation, files.identity.certificate, keys.authorities.issuer):
        files = issue_controller(rotation.fleet, keys.authorities.issuer, files.bundle, now)
    await _require_proof(await rotation.proxies(), _proof_of_entry(files))
    store = open_store(rotation.kube, rotation.fleet)
    await store.store(rotation.fleet.controller_secret, files.data, version=keys.controller.version)
    return f"the controller shows serial {files.identity.certificate.serial}"


async def retire(rotation: Rotation) -> str:
    """Take the old authority out of every bundle; proven by a refusal of its certificates from each proxy."""
    keys, now = await rotation.keys(), rotation.clock()
    old, successor = keys.authorities.current, _require_successor(keys)
    await _refuse_early_retirement(rotation, keys, successor)
    only = build_bundle(successor.identity.chain[:1], now)
    await _store_bundles(rotation, keys, only)
    await _distribute(rotation, _proof_of_access(rotation, old, only, accepted=False))
    await _store_authorities(rotation, Authorities(successor, None, keys.authorities.version))
    return f"{old.certificate.subject} is trusted by nobody"


ROTATION_STEPS: dict[RotationStep, Callable[[Rotation], Awaitable[str]]] = {
    RotationStep.PREPARE: prepare,
    RotationStep.TRUST_BOTH: trust_both,
    RotationStep.REISSUE: reissue,
    RotationStep.SWITCH: switch,
    RotationStep.RETIRE: retire,
}


def list_certificates(keys: FleetKeys, clock: Clock = utc_now) -> list[CertificateView]:
    """Return the certificates of a fleet as they are shown to people."""
    shown: list[tuple[str, Certificate]] = [("authority", keys.authorities.current.certificate)]
    if keys.authorities.successor is not None:
        shown.append(("next authority", keys.authorities.successor.certificate))
    shown.append(("controller", keys.controller.files.identity.certificate))
    shown.append(("proxies", keys.proxies.files.identity.certificate))
    return [_view(role, certificate, clock) for role, certificate in shown]


def _view(role: str, certificate: Certificate, clock: Clock) -> CertificateView:
    renewal = find_renewal(certificate)
    return CertificateView(
        role=role,
        subject=certificate.subject,
        issuer=certificate.issuer,
        serial=certificate.serial,
        expires=certificate.not_after,
        renew_at=renewal,
        due=clock() >= renewal,
    )


async def _distribute(rotation: Rotation, proof: Proof) -> None:
    files = (await rotation.keys()).proxies.files
    await distribute(rotation.kube, await rotation.proxies(), files, proof)


async def _store_bundles(rotation: Rotation, keys: FleetKeys, bundle: TrustBundle) -> None:
    """Store a bundle for both sides; the controller first when trust grows, so that it never meets a stranger."""
    store, now, fleet = open_store(rotation.kube, rotation.fleet), rotation.clock(), rotation.fleet
    pairs = ((fleet.controller_secret, keys.controller), (fleet.proxy_secret, keys.proxies))
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


def _is_current(rotation: Rotation, leaf: Certificate, issuer: Authority) -> bool:
    """Whether a leaf is of the issuer in force, not due, and not older than the rotation; else it is issued anew."""
    if leaf.issuer != issuer.certificate.subject or rotation.clock() >= find_renewal(leaf):
        return False
    return rotation.since is None or leaf.not_before + CLOCK_SKEW >= rotation.since


def _proof_of_serial(controller: IdentityFiles, serial: str) -> Proof:
    context = build_client_context(controller.bundle, controller.identity)

    async def proof(proxy: Proxy) -> str:
        shown = await prove(proxy.ip, proxy.admin_port, proxy.server_name, context)
        if not shown.accepted or shown.certificate is None:
            return shown.message or shown.reason.value
        return "" if shown.certificate.serial == serial else f"it shows serial {shown.certificate.serial}"

    return proof


def _proof_of_entry(controller: IdentityFiles) -> Proof:
    context = build_client_context(controller.bundle, controller.identity)

    async def proof(proxy: Proxy) -> str:
        shown = await prove(proxy.ip, proxy.admin_port, proxy.server_name, context)
        return "" if shown.accepted else shown.message or shown.reason.value

    return proof


def _proof_of_access(rotation: Rotation, authority: Authority, trust: TrustBundle, *, accepted: bool) -> Proof:
    """Return a proof that a throw-away client certificate of an authority is let in, or that it is refused."""
    probe = authority.issue(request_controller(f"{rotation.fleet.name} probe"), rotation.clock())
    context = build_client_context(trust, probe)
    wanted = HandshakeReason.ACCEPTED if accepted else HandshakeReason.CLIENT_REFUSED

    async def proof(proxy: Proxy) -> str:
        shown = await prove(proxy.ip, proxy.admin_port, proxy.server_name, context)
        return "" if shown.reason is wanted else shown.message or shown.reason.value

    return proof


async def _require_proof(proxies: Sequence[Proxy], proof: Proof) -> None:
    missing = [f"{proxy.name} ({seen})" for proxy in proxies if (seen := await proof(proxy))]
    if missing:
        raise VerificationFailed(
            f"Not let in by: {', '.join(missing)}", reason="NotLetIn", hint="reference/errors.md#not-let-in"
        )


async def _refuse_early_retirement(rotation: Rotation, keys: FleetKeys, successor: Authority) -> None:
    """Refuse to drop the old authority while a proxy still shows, or the controller still holds, a leaf of it."""
    holders = []
    if keys.controller.files.identity.certificate.issuer != successor.certificate.subject:
        holders.append("the controller")
    for proxy in await rotation.proxies():
        context = build_client_context(keys.controller.files.bundle, keys.controller.files.identity)
        shown = await prove(proxy.ip, proxy.admin_port, proxy.server_name, context)
        if shown.certificate is None or shown.certificate.issuer != successor.certificate.subject:
            holders.append(proxy.name)
    if holders:
        raise VerificationFailed(
            f"The old authority is still needed by {', '.join(holders)}; it is not retired",
            reason="AuthorityInUse",
            hint="reference/errors.md#authority-in-use",
        )
