"""Observes the identities of a fleet: what is stored, what each proxy shows, and whom it lets in.

Nothing is believed: what a proxy trusts is found out with a throw-away certificate of each authority.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from konverge.decide.rotating import StoredIdentities
from konverge.errors import Unavailable
from konverge.model.proxy import Proxy, ProxyStatus
from konverge.model.rotation import CertificateView, ProxyIdentity
from konverge.operate.clock import Clock, utc_now
from konverge.operate.gathering import gather_all
from konverge.operate.identities import FleetKeys
from konverge.operate.proving import ABSENT, SILENT_SECONDS, read_failure
from konverge.pki.asking import read_trusted_names
from konverge.pki.authority import Authority, request_controller
from konverge.pki.bundle import TrustBundle
from konverge.pki.contexts import build_client_context
from konverge.pki.files import CONTROLLER_BUNDLE_FILE, IdentityFiles
from konverge.pki.handshake import Handshake, HandshakeReason, prove
from konverge.pki.inspecting import CLOCK_SKEW, Certificate, find_renewal

CONCURRENCY = 20
"""Proxies that are looked at side by side."""
TRIES = 3
PAUSE = 0.5
"""Seconds between two tries: a proxy counts as out of reach when none of them met anybody."""
PROBE_NAME = "konverge probe"


def observe(keys: FleetKeys, clock: Clock = utc_now, since: datetime | None = None) -> StoredIdentities:
    """Return what the stored identities say, for the decision which step comes next.

    ``since`` is when a rotation was asked for; an authority that is younger is its result.
    """
    now, authorities = clock(), keys.authorities
    current, successor = authorities.current.certificate, authorities.successor
    issued = current.not_before + CLOCK_SKEW
    names = {known.certificate.subject: known.certificate.fingerprint for known in list_authorities(keys)}
    leaves = (keys.controller.files.identity.certificate, keys.proxies.files.identity.certificate)
    return StoredIdentities(
        current=current.fingerprint,
        successor=successor.certificate.fingerprint if successor else None,
        controller_bundle=keys.controller.files.bundle.fingerprints,
        proxy_bundle=keys.proxies.files.bundle.fingerprints,
        controller_issuer=names.get(leaves[0].issuer, ""),
        proxy_issuer=names.get(leaves[1].issuer, ""),
        authority_due=now >= find_renewal(current),
        leaf_due=any(now >= find_renewal(leaf) for leaf in leaves),
        authority_fresh=since is not None and issued >= since,
        proxy_serial=leaves[1].serial,
    )


def list_authorities(keys: FleetKeys) -> tuple[Authority, ...]:
    """Return the authority in force and, during a rotation, its successor; none where somebody else signs."""
    own = keys.own
    return tuple(filter(None, (own.current, own.successor))) if own is not None else ()


def list_names(keys: FleetKeys) -> dict[str, str]:
    """Return the subjects of the authorities that the fleet knows, by fingerprint."""
    bundles = (keys.controller.files.bundle, keys.proxies.files.bundle)
    known = [authority for bundle in bundles for authority in bundle.authorities]
    known += [authority.certificate for authority in list_authorities(keys)]
    return {authority.fingerprint: authority.subject for authority in known}


def list_revocable(keys: FleetKeys) -> list[tuple[str, str, str]]:
    """Return serial, fingerprint and authority of everything that can be revoked: authorities and stored leaves."""
    names = {known.certificate.subject: known.certificate.fingerprint for known in list_authorities(keys)}
    found = [known.certificate for known in list_authorities(keys)]
    found += [kept.files.identity.certificate for kept in (keys.controller, keys.proxies)]
    return [
        (certificate.serial, certificate.fingerprint, names[certificate.issuer])
        for certificate in found
        if certificate.issuer in names
    ]


def issue_probe(authority: Authority, trust: TrustBundle, clock: Clock = utc_now) -> IdentityFiles:
    """Issue a throw-away client certificate; its key never leaves this process."""
    leaf = authority.issue(request_controller(PROBE_NAME), clock())
    return IdentityFiles(leaf, trust, CONTROLLER_BUNDLE_FILE)


@dataclass(frozen=True, slots=True)
class Observer:
    """Looks at proxies as a controller with the stored identity would see them."""

    stored: StoredIdentities
    context: ssl.SSLContext = field(repr=False)
    probes: tuple[tuple[str, ssl.SSLContext], ...] = field(repr=False)
    """A context for each authority, by fingerprint; it trusts whatever any of them has issued."""
    subjects: frozenset[bytes]
    """The names of the authorities whose clients the stored files let in, as they stand in a handshake (DER)."""
    names: dict[str, str]
    """Fingerprint of an authority by its subject."""

    @classmethod
    def of(cls, keys: FleetKeys, clock: Clock = utc_now) -> Observer:
        """Prepare one certificate and one context per authority, for any number of proxies."""
        files, known = keys.controller.files, list_authorities(keys)
        trust = files.bundle
        for authority in known:
            trust = trust.overlap(TrustBundle(authority.identity.chain[:1]), clock())
        probes = []
        for authority in known:
            probe = issue_probe(authority, trust, clock)
            probes.append((authority.certificate.fingerprint, build_client_context(trust, probe.identity)))
        return cls(
            observe(keys, clock),
            build_client_context(files.bundle, files.identity),
            tuple(probes),
            frozenset(one.subject.public_bytes() for one in keys.proxies.files.bundle.certificates),
            {authority.certificate.subject: authority.certificate.fingerprint for authority in known},
        )

    async def look(self, proxies: Iterable[Proxy]) -> list[ProxyIdentity]:
        """Look at proxies side by side; one that does not answer is asked again before it counts as absent."""
        slots = asyncio.Semaphore(CONCURRENCY)

        async def follow(proxy: Proxy) -> ProxyIdentity:
            async with slots:
                return await self._look_at(proxy)

        return await gather_all(follow(proxy) for proxy in proxies)

    async def _look_at(self, proxy: Proxy) -> ProxyIdentity:
        shown = await _meet(proxy, self.context)
        if shown.reason in ABSENT:
            return ProxyIdentity(proxy=proxy.name, reachable=False, seen=shown.message or shown.reason.value)
        trusts = [name for name, context in self.probes if await _lets_in(proxy, context)]
        return self._describe(proxy, shown, tuple(trusts), await self._count_excess(proxy))

    async def _count_excess(self, proxy: Proxy) -> int:
        try:
            named = await read_trusted_names(proxy.ip, proxy.admin_port, proxy.server_name)
        except Unavailable:
            return 0
        return len(named - self.subjects)

    def _describe(self, proxy: Proxy, shown: Handshake, trusts: tuple[str, ...], excess: int) -> ProxyIdentity:
        seen, certificate = "" if shown.accepted else read_failure(shown).fault, shown.certificate
        base = ProxyIdentity(
            proxy=proxy.name,
            accepted=shown.accepted,
            verified=shown.verified,
            trusts=trusts,
            excess=excess,
            protocol=shown.protocol,
        )
        if certificate is None:
            return base.model_copy(update={"seen": seen})
        return base.model_copy(
            update={
                "subject": certificate.subject,
                "issuer": certificate.issuer,
                "authority": self.names.get(certificate.issuer, ""),
                "serial": certificate.serial,
                "starts": certificate.not_before,
                "expires": certificate.not_after,
                "seen": seen or self._find_difference(certificate, trusts, excess),
            }
        )

    def _find_difference(self, certificate: Certificate, trusts: Sequence[str], excess: int) -> str:
        """Return how a proxy that gets on with the controller differs from what is stored for it."""
        if certificate.serial != self.stored.proxy_serial:
            return f"it shows serial {certificate.serial}, stored is {self.stored.proxy_serial}"
        if frozenset(trusts) != self.stored.proxy_bundle & self.stored.authorities:
            return "it trusts other authorities than those that are stored for it"
        if excess:
            return f"it still trusts {excess} authorities that are not in force any more"
        return ""


async def _meet(proxy: Proxy, context: ssl.SSLContext) -> Handshake:
    started = time.monotonic()
    shown = await prove(proxy.ip, proxy.admin_port, proxy.server_name, context)
    for _ in range(TRIES - 1):
        again = shown.reason in (*ABSENT, HandshakeReason.TLS_FAILED)
        if not again or time.monotonic() - started > SILENT_SECONDS:
            break
        await asyncio.sleep(PAUSE)
        shown = await prove(proxy.ip, proxy.admin_port, proxy.server_name, context)
    return shown


async def _lets_in(proxy: Proxy, context: ssl.SSLContext) -> bool:
    return (await _meet(proxy, context)).accepted


def list_certificates(
    keys: FleetKeys, clock: Clock = utc_now, proxies: Iterable[ProxyIdentity] = ()
) -> list[CertificateView]:
    """Return the certificates of a fleet as they are shown to people: the stored ones, then what proxies show."""
    roles = ("authority", "next authority")
    shown = [(role, known.certificate) for role, known in zip(roles, list_authorities(keys), strict=False)]
    shown.append(("controller", keys.controller.files.identity.certificate))
    shown.append(("proxies", keys.proxies.files.identity.certificate))
    views = [_view(role, certificate, clock) for role, certificate in shown]
    stored = views[-1]
    return views + [view for proxy in proxies if (view := _view_proxy(proxy, stored)) is not None]


def view_shown(statuses: Iterable[ProxyStatus], stored: CertificateView) -> list[CertificateView]:
    """Return the certificates that proxies showed at their last handshake, as far as that is known."""
    shown = [
        ProxyIdentity(proxy=status.pod, **status.mtls.model_dump(include=set(_SHOWN)))
        for status in statuses
        if status.mtls.expires is not None
    ]
    return [view for proxy in shown if (view := _view_proxy(proxy, stored)) is not None]


_SHOWN = ("subject", "issuer", "serial", "starts", "expires", "protocol")


def _view(role: str, certificate: Certificate, clock: Clock) -> CertificateView:
    renewal = find_renewal(certificate)
    return CertificateView(
        role=role,
        subject=certificate.subject,
        issuer=certificate.issuer,
        serial=certificate.serial,
        starts=certificate.not_before,
        expires=certificate.not_after,
        renew_at=renewal,
        due=clock() >= renewal,
        fingerprint=certificate.fingerprint,
    )


def _view_proxy(proxy: ProxyIdentity, stored: CertificateView) -> CertificateView | None:
    if proxy.expires is None:
        return None
    differs = proxy.serial != stored.serial
    return CertificateView(
        role="proxy",
        subject=proxy.subject,
        issuer=proxy.issuer,
        serial=proxy.serial,
        starts=proxy.starts,
        expires=proxy.expires,
        renew_at=stored.renew_at,
        due=stored.due or differs,
        pod=proxy.proxy,
    )
