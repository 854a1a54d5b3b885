"""Which client certificates a generation of workers trusts, and the TLS contexts of the listeners.

A context is kept as long as the server certificate and the *names* of the trusted CAs stay the same: it holds the
session tickets and the session cache, which in nginx live in shared memory and survive a reload. nginx binds sessions
to exactly these (``ngx_ssl_session_id_context``): names, not keys.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from konverge.lab.kong.wire.broken import BrokenFiles
from konverge.lab.kong.wire.pages import BAD_CERTIFICATE, NO_CERTIFICATE
from konverge.lab.kong.wire.tls import VERIFIED

PEM_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
CLIENT_AUTH = x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH
ANY_USAGE = x509.oid.ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
REMEMBERED = 4096


@dataclass(frozen=True)
class TlsFiles:
    """What one TLS listener is made of. ``client_ca`` of None means: no client certificate is asked for."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None
    verify: str = "off"
    """nginx's ssl_verify_client: on, off, optional, optional_no_ca."""
    depth: int = 1
    tickets: bool = True
    cache: bool = True
    timeout: int = 86400
    http2: bool = False
    protocols: str = "TLSv1.2 TLSv1.3"
    """nginx's ssl_protocols; what is older than TLS 1.2 is switched off by Kong's cipher suites."""


def load_bundle(data: bytes, path: str) -> list[x509.Certificate]:
    """Load the CAs of a bundle. Like nginx, junk *after* a certificate goes unnoticed. Raises BrokenFiles."""
    blocks = PEM_BLOCK.findall(data)
    if not blocks:
        raise BrokenFiles(f'cannot load "{path}": no certificate or crl found')
    rest = data[data.rfind(b"-----END CERTIFICATE-----") + 25 :]
    if b"-----BEGIN CERTIFICATE-----" in rest:
        raise BrokenFiles(f'SSL_load_client_CA_file("{path}") failed (bad end line)')
    try:
        return [x509.load_pem_x509_certificate(block) for block in blocks]
    except ValueError as error:
        raise BrokenFiles(f'cannot load "{path}": {error}') from None


class Trust:
    """Judges client certificates; remembers what it has accepted, for resumed sessions."""

    def __init__(self, files: TlsFiles, cas: list[x509.Certificate]) -> None:
        self.required = files.verify == "on"
        self._lenient = files.verify == "optional_no_ca"
        self._depth = files.depth
        self._anchors = [crypto.X509.from_cryptography(ca) for ca in cas]

    def judge(self, certificate: crypto.X509 | None, chain: list[crypto.X509], offset: float) -> str:
        """Return "" or the text of nginx's 400 page; ``offset`` moves the clock, in seconds."""
        if certificate is None:
            return NO_CERTIFICATE if self.required else ""
        if self._lenient:
            return ""
        store = crypto.X509Store()
        for anchor in self._anchors:
            store.add_cert(anchor)
        # The purpose is checked below; set_time takes naive UTC.
        store.set_time(datetime.now(UTC) + timedelta(seconds=offset))
        verifier = crypto.X509StoreContext(store, certificate, chain)
        try:
            verified = verifier.get_verified_chain()
        except crypto.X509StoreContextError:
            return BAD_CERTIFICATE
        if len(verified) - 2 > self._depth or not _may_be_client(certificate.to_cryptography()):
            return BAD_CERTIFICATE
        return ""


def _may_be_client(certificate: x509.Certificate) -> bool:
    """Tell whether key usages allow TLS client authentication (RFC 5280, OpenSSL's sslclient purpose)."""
    extensions = certificate.extensions
    try:
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if CLIENT_AUTH not in usages and ANY_USAGE not in usages:
            return False
    except x509.ExtensionNotFound:
        pass
    try:
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.digital_signature or usage.key_agreement


@dataclass
class TlsContext:
    """An OpenSSL context with the memory that nginx keeps in its session cache."""

    ssl: SSL.Context
    identity: bytes
    accepted: OrderedDict[bytes, bool] = field(default_factory=OrderedDict)
    """Digests of client certificates that a full handshake of this context has accepted."""

    def remember(self, certificate: crypto.X509) -> None:
        """Note an accepted certificate."""
        self.accepted[_fingerprint(certificate)] = True
        while len(self.accepted) > REMEMBERED:
            self.accepted.popitem(last=False)

    def remembers(self, certificate: crypto.X509) -> bool:
        """Tell whether a full handshake accepted this certificate before."""
        return _fingerprint(certificate) in self.accepted


def _fingerprint(certificate: crypto.X509) -> bytes:
    return hashlib.sha256(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)).digest()


def identify(files: TlsFiles, cas: list[x509.Certificate]) -> bytes:
    """Return the session id context: server certificate and names of the CAs."""
    digest = hashlib.sha256(files.certificate)
    for ca in cas:
        digest.update(ca.subject.public_bytes())
    digest.update(f"{files.tickets}{files.cache}{files.timeout}{files.http2}{files.verify}".encode())
    return digest.digest()[:32]


def build_context(files: TlsFiles, cas: list[x509.Certificate], path: str) -> TlsContext:
    """Make an OpenSSL context. Raises BrokenFiles with nginx's words."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    protocols = files.protocols.split()
    context.set_min_proto_version(SSL.TLS1_2_VERSION if "TLSv1.2" in protocols else SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION if "TLSv1.3" in protocols else SSL.TLS1_2_VERSION)
    try:
        chain = [x509.load_pem_x509_certificate(block) for block in PEM_BLOCK.findall(files.certificate)]
        if not chain:
            raise BrokenFiles(f'cannot load certificate "{path}": PEM_read_bio_X509_AUX() failed')
        context.use_certificate(chain[0])
        for extra in chain[1:]:
            context.add_extra_chain_cert(extra)
        context.use_privatekey(_load_key(files.key))
        context.check_privatekey()
    except (SSL.Error, crypto.Error, ValueError) as error:
        raise BrokenFiles(f'SSL_CTX_use_PrivateKey("{path}") failed ({_reason(error)})') from None
    identity = identify(files, cas)
    context.set_session_id(identity)
    context.set_session_cache_mode(SSL.SESS_CACHE_SERVER if files.cache else SSL.SESS_CACHE_OFF)
    context.set_timeout(files.timeout)
    if not files.tickets:
        context.set_options(SSL.OP_NO_TICKET)
    if files.verify != "off":
        context.set_verify(SSL.VERIFY_PEER, _agree)
        for ca in cas:
            context.add_client_ca(ca)
    offers = [b"h2", b"http/1.1"] if files.http2 else [b"http/1.1"]
    context.set_alpn_select_callback(lambda _connection, wanted: _select(offers, wanted))
    return TlsContext(context, identity)


def _load_key(pem: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, None)
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise ValueError("unsupported key type")
    return key


def _agree(connection: SSL.Connection, *_: object) -> bool:
    connection.set_app_data(VERIFIED)
    return True


def _select(offers: list[bytes], wanted: list[bytes]) -> Any:
    return next((offer for offer in offers if offer in wanted), SSL.NO_OVERLAPPING_PROTOCOLS)


def _reason(error: Exception) -> str:
    text = str(error)
    if "key values mismatch" in text:
        return "key values mismatch"
    return text or "no start line"


def read_file(path: Path, shown: str) -> bytes:
    """Read a file. Raises BrokenFiles with nginx's words."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BrokenFiles(f'cannot load "{shown}": {error.strerror}') from None
