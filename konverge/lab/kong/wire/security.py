"""The TLS side of a listener for one generation of workers: context, trust and who answers after the handshake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cryptography import x509
from OpenSSL import SSL

from konverge.lab.kong.wire.connections import ServerContext
from konverge.lab.kong.wire.exchange import Peer
from konverge.lab.kong.wire.http1 import Http1Connection
from konverge.lab.kong.wire.http2 import Http2Connection
from konverge.lab.kong.wire.listener import Security
from konverge.lab.kong.wire.pages import BAD_CERTIFICATE, PLAIN_ON_TLS
from konverge.lab.kong.wire.tls import Handshake, TlsLayer
from konverge.lab.kong.wire.trust import TlsContext, TlsFiles, Trust, build_context, identify, load_bundle


class TlsSecurity(Security):
    """Server certificate plus trust of one generation. Build it with :func:`load_security`."""

    def __init__(self, files: TlsFiles, context: TlsContext, trust: Trust | None) -> None:
        self.files = files
        self.context = context
        self._trust = trust
        self.clock_offset: Callable[[], float] = lambda: 0.0

    def accept(self, context: ServerContext, peer: Peer) -> asyncio.Protocol:
        """Return a TLS layer for a fresh connection."""
        handshakes = context.connections.handshakes
        return TlsLayer(self.context.ssl, peer, lambda who, shake: self._greet(context, who, shake), handshakes)

    def _greet(self, context: ServerContext, peer: Peer, shake: Handshake) -> asyncio.Protocol:
        if shake.plain:
            peer.tls, peer.refusal = False, PLAIN_ON_TLS
        elif self._trust is not None:
            peer.refusal = self._judge(self._trust, shake)
        if shake.alpn == "h2":
            return Http2Connection(context, peer)
        return Http1Connection(context, peer)

    def _judge(self, trust: Trust, shake: Handshake) -> str:
        certificate = shake.certificate
        if certificate is not None and shake.resumed:
            return "" if self.context.remembers(certificate) else BAD_CERTIFICATE
        refusal = trust.judge(certificate, list(shake.chain), self.clock_offset())
        if certificate is not None and not refusal:
            self.context.remember(certificate)
        return refusal


def load_security(
    files: TlsFiles, previous: TlsSecurity | None, *, cert_path: str = "", ca_path: str = ""
) -> TlsSecurity:
    """Load a listener's files; sessions of ``previous`` stay valid where nginx would keep them.

    Raises BrokenFiles with nginx's words.
    """
    cas: list[x509.Certificate] = []
    if files.verify != "off":
        cas = load_bundle(files.client_ca or b"", ca_path)
    trust = Trust(files, cas) if files.verify != "off" else None
    fresh = build_context(files, cas, cert_path)
    if previous is not None and previous.context.identity == identify(files, cas):
        same_key = previous.files.key == files.key
        fresh = previous.context if same_key else fresh
    return TlsSecurity(files, fresh, trust)


def select_by_name(security: TlsSecurity, choose: Callable[[str], SSL.Context | None]) -> None:
    """Let ``choose`` pick another context by SNI (certificates of the proxy listener)."""

    def switch(connection: SSL.Connection) -> None:
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        chosen = choose(name) if name else None
        if chosen is not None:
            connection.set_context(chosen)

    security.context.ssl.set_tlsext_servername_callback(switch)
