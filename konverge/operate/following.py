"""Follows an issuer that is not ours: adopts the leaves that it offers and the authorities that it publishes.

The order is that of a rotation of our own: both sides trust what was and what comes, the proxies show their new
certificate, the controller shows its own, and only then the old authority is dropped. What it lacks is the issuer's
key, so whom a proxy trusts is read from the names that it sends in the handshake.
"""

from __future__ import annotations

from dataclasses import dataclass

from konverge.errors import Invalid
from konverge.model.rotation import ProxyWork, RotationStep, StepReport
from konverge.operate.identities import (
    FleetKeys,
    adopt,
    open_issuer,
    open_store,
    request_for_controller,
    request_for_proxies,
)
from konverge.operate.proving import prove_all, prove_entry, prove_serial, prove_trust
from konverge.operate.rotating import Rotation, bring_into_force, require_entry
from konverge.operate.settling import wait_until_shown
from konverge.pki.authority import Identity
from konverge.pki.bundle import TrustBundle
from konverge.pki.files import CONTROLLER_BUNDLE_FILE, PROXY_BUNDLE_FILE, assemble_files
from konverge.pki.inspecting import CLOCK_SKEW, find_renewal


@dataclass(frozen=True, slots=True)
class Offer:
    """What an issuer has for a fleet now."""

    controller: Identity
    proxies: Identity
    trust: TrustBundle


async def read_offer(rotation: Rotation) -> Offer:
    """Return the leaves and authorities of the issuer; leaves that are due or asked for are ordered anew."""
    issuer = await open_issuer(rotation.kube, rotation.fleet, rotation.clock)

    async def leaf(controller: bool) -> Identity:
        request = request_for_controller(rotation.fleet) if controller else request_for_proxies(rotation.fleet)
        ready = await adopt(issuer, request)
        return await issuer.issue(request) if _is_old(rotation, ready) else ready

    controller, proxies = await leaf(True), await leaf(False)
    return Offer(controller, proxies, await issuer.trust())


def _is_old(rotation: Rotation, leaf: Identity) -> bool:
    certificate = leaf.certificate
    asked = rotation.since is not None and certificate.not_before + CLOCK_SKEW < rotation.since
    return asked or rotation.clock() >= find_renewal(certificate)


async def is_behind(rotation: Rotation, keys: FleetKeys) -> bool:
    """Tell whether the issuer offers something else than what is stored, or a proxy that answers runs with less."""
    offer = await read_offer(rotation)
    stored = (keys.controller.files, keys.proxies.files)
    if any(files.bundle.fingerprints != offer.trust.fingerprints for files in stored):
        return True
    if (offer.controller.certificate, offer.proxies.certificate) != tuple(f.identity.certificate for f in stored):
        return True
    proof = prove_all(
        prove_serial(stored[0], offer.proxies.certificate.serial), prove_trust(offer.trust, exactly=True)
    )
    seen = [await proof(proxy) for proxy in await rotation.proxies()]
    return any(each.reachable and not each.holds for each in seen)


async def follow_issuer(rotation: Rotation) -> StepReport:
    """Bring the fleet to what the issuer offers; proxies out of reach hold up what would make them strangers."""
    offer = await read_offer(rotation)
    works = await _adopt_leaf(rotation, offer)
    owing = [work for work in works if work.owes]
    before = (await rotation.keys()).controller.files.identity.certificate
    moved = before.issuer != offer.controller.certificate.issuer
    if owing and moved and not rotation.emergency:
        return _report(works, "the controller keeps its certificate", waiting=True)
    await _switch(rotation, offer)
    stored = (await rotation.keys()).proxies.files
    if stored.bundle.fingerprints == offer.trust.fingerprints:
        return _report(works, f"proxies show serial {stored.identity.certificate.serial}")
    if owing and not rotation.emergency:
        return _report(works, "the former authority stays trusted", waiting=True)
    works = await _drop_former(rotation, offer)
    return _report(works, f"proxies trust {len(offer.trust.certificates)} authorities of the issuer and no other")


async def _adopt_leaf(rotation: Rotation, offer: Offer) -> list[ProxyWork]:
    """Trust what was and what comes on both sides, the controller first, and show the new leaf on the proxies."""
    keys, now = await rotation.keys(), rotation.clock()
    both = _join_trust(rotation, offer.trust, keys)
    store, fleet = open_store(rotation.kube, rotation.fleet), rotation.fleet
    controller = assemble_files(keys.controller.files.identity, both, now, CONTROLLER_BUNDLE_FILE)
    if keys.controller.files.bundle.fingerprints != both.fingerprints:
        await store.store(fleet.controller_secret, controller.data, version=keys.controller.version)
    proxies = assemble_files(offer.proxies, both, now, PROXY_BUNDLE_FILE)
    if keys.proxies.files.data != proxies.data:
        await store.store(fleet.proxy_secret, proxies.data, version=keys.proxies.version)
    serial = offer.proxies.certificate.serial
    return await bring_into_force(rotation, prove_all(prove_serial(controller, serial), prove_trust(offer.trust)))


def _join_trust(rotation: Rotation, offered: TrustBundle, keys: FleetKeys) -> TrustBundle:
    """Return what is trusted while both authorities are in force; Invalid where they cannot be told apart."""
    now, stored = rotation.clock(), keys.controller.files
    try:
        return offered.overlap(keys.proxies.files.bundle, now).overlap(stored.bundle, now)
    except Invalid as error:
        issuer, until = rotation.fleet.spec.identity.issuer, stored.identity.certificate.not_after
        raise Invalid(
            f"The authority that {issuer.issuer_kind} {issuer.name or issuer.kind} publishes now cannot be taken up: "
            f"{error.message}. The stored leaves go on until {until:%FT%TZ}: give the authority a name of its own "
            "before that",
            reason=error.reason,
            hint="howto/issuers.md#cert-manager",
        ) from error


async def _switch(rotation: Rotation, offer: Offer) -> None:
    keys = await rotation.keys()
    kept = keys.controller
    if kept.files.identity.certificate == offer.controller.certificate:
        return
    files = assemble_files(offer.controller, kept.files.bundle, rotation.clock(), CONTROLLER_BUNDLE_FILE)
    await require_entry(rotation, files)
    store = open_store(rotation.kube, rotation.fleet)
    await store.store(rotation.fleet.controller_secret, files.data, version=kept.version)
    await wait_until_shown(rotation.kube, rotation.fleet, files.identity.certificate.serial)


async def _drop_former(rotation: Rotation, offer: Offer) -> list[ProxyWork]:
    keys, now, fleet = await rotation.keys(), rotation.clock(), rotation.fleet
    store = open_store(rotation.kube, fleet)
    for name, kept in ((fleet.controller_secret, keys.controller), (fleet.proxy_secret, keys.proxies)):
        files = assemble_files(kept.files.identity, offer.trust, now, kept.files.bundle_file)
        await store.store(name, files.data, version=kept.version)
    controller = (await rotation.keys()).controller.files
    return await bring_into_force(
        rotation, prove_all(prove_entry(controller), prove_trust(offer.trust, exactly=True))
    )


def _report(works: list[ProxyWork], what: str, *, waiting: bool = False) -> StepReport:
    owing = ", ".join(f"{work.proxy} ({work.seen})" for work in works if work.owes)
    message = f"waits for {owing}; {what}" if waiting else f"{len(works)} {what}"
    return StepReport(step=RotationStep.REISSUE, message=message, waiting=waiting, proxies=tuple(works))
