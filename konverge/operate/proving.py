"""Proofs: handshakes that show whether what was done to a proxy is in force."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from konverge.errors import Unavailable
from konverge.model.proxy import Proxy
from konverge.pki.asking import read_trusted_names
from konverge.pki.bundle import TrustBundle
from konverge.pki.contexts import build_client_context
from konverge.pki.files import IdentityFiles
from konverge.pki.handshake import Handshake, HandshakeReason, prove
from konverge.pki.resuming import Visit, visit

ABSENT = (HandshakeReason.UNREACHABLE, HandshakeReason.NO_ANSWER)
"""Ways in which a handshake ends when there is nobody to judge."""

SILENT_SECONDS = 8.0
"""A proxy that stayed silent for this long is not asked again: it is out of reach."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a proof found: "" where it holds, else what was seen instead, and whether anybody answered."""

    fault: str = ""
    reachable: bool = True

    @property
    def holds(self) -> bool:
        """Whether the proof is given."""
        return not self.fault


HOLDS = Seen()
Proof = Callable[[Proxy], Awaitable[Seen]]
"""Makes handshakes with one proxy; it raises for nothing that the proxy does."""


def read_failure(shown: Handshake) -> Seen:
    """Return what a handshake that was not accepted means for a proof."""
    return Seen(shown.message or shown.reason.value, reachable=shown.reason not in ABSENT)


def prove_all(*proofs: Proof) -> Proof:
    """Return a proof that holds where all of them do; the first that does not is what is seen."""

    async def proof(proxy: Proxy) -> Seen:
        for each in proofs:
            seen = await each(proxy)
            if not seen.holds:
                return seen
        return HOLDS

    return proof


def prove_serial(controller: IdentityFiles, serial: str) -> Proof:
    """Return a proof that a proxy shows the certificate of a serial and lets the controller in."""
    context = build_client_context(controller.bundle, controller.identity)

    async def proof(proxy: Proxy) -> Seen:
        shown = await prove(proxy.ip, proxy.admin_port, proxy.server_name, context)
        if not shown.accepted or shown.certificate is None:
            return read_failure(shown)
        return HOLDS if shown.certificate.serial == serial else Seen(f"it shows serial {shown.certificate.serial}")

    return proof


def prove_entry(files: IdentityFiles) -> Proof:
    """Return a proof that a client certificate is let in; ``files`` are the certificate and whom it trusts."""
    context = build_client_context(files.bundle, files.identity)

    async def proof(proxy: Proxy) -> Seen:
        shown = await prove(proxy.ip, proxy.admin_port, proxy.server_name, context)
        return HOLDS if shown.accepted else read_failure(shown)

    return proof


def prove_refusal(files: IdentityFiles) -> Proof:
    """Return a proof that a client certificate is not let in."""
    context = build_client_context(files.bundle, files.identity)

    async def proof(proxy: Proxy) -> Seen:
        shown = await prove(proxy.ip, proxy.admin_port, proxy.server_name, context)
        if shown.reason is HandshakeReason.CLIENT_REFUSED:
            return HOLDS
        if shown.accepted:
            return Seen(f"it still lets certificates of {files.identity.certificate.issuer} in")
        return read_failure(shown)

    return proof


def prove_trust(trust: TrustBundle, *, exactly: bool = False) -> Proof:
    """Return a proof that a proxy names the authorities of a bundle as those whose clients it lets in."""
    wanted = frozenset(certificate.subject.public_bytes() for certificate in trust.certificates)

    async def proof(proxy: Proxy) -> Seen:
        try:
            named = await read_trusted_names(proxy.ip, proxy.admin_port, proxy.server_name)
        except Unavailable as error:
            return Seen(error.message, reachable=False)
        if wanted - named:
            return Seen(f"it does not trust {len(wanted - named)} authorities that are in force")
        if exactly and named - wanted:
            return Seen(f"it trusts {len(named - wanted)} authorities that are not in force any more")
        return HOLDS

    return proof


class Sessions:
    """TLS sessions that proxies gave a certificate while it was welcome, to be tried again when it is not.

    A listener whose tickets and session cache are both off gives none away; then the second visit is an ordinary
    handshake, and has to be refused as one.
    """

    def __init__(self, files: IdentityFiles) -> None:
        self._context = build_client_context(files.bundle, files.identity)
        self._issuer = files.identity.certificate.issuer
        self._kept: dict[str, ssl.SSLSession | None] = {}

    async def open(self, proxy: Proxy) -> None:
        """Visit a proxy and keep what it gives; nothing is kept of one that is out of reach or refuses already."""
        try:
            came = await self._visit(proxy, None)
        except Unavailable:
            return
        if not came.refusal:
            self._kept[proxy.name] = came.session

    async def prove_refused(self, proxy: Proxy) -> Seen:
        """Return whether the kept session is refused; where none was kept there is nothing to resume."""
        if proxy.name not in self._kept:
            return HOLDS
        try:
            came = await self._visit(proxy, self._kept[proxy.name])
        except Unavailable as error:
            return Seen(error.message, reachable=False)
        if came.refusal:
            return HOLDS
        how = "a resumed session" if came.reused else "a certificate"
        return Seen(f"it lets {how} of {self._issuer} in; are nginx_admin_ssl_session_tickets and _cache off?")

    async def _visit(self, proxy: Proxy, session: ssl.SSLSession | None) -> Visit:
        return await visit(proxy.ip, proxy.admin_port, proxy.server_name, self._context, session=session)
