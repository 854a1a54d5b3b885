"""The TLS listeners of a node: which files they use, and the certificates of the proxy by server name."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL

from konverge.lab.kong.settings import DEFAULT_PROTOCOLS
from konverge.lab.kong.wire.broken import BrokenFiles
from konverge.lab.kong.wire.listener import Security
from konverge.lab.kong.wire.security import TlsSecurity, load_security, select_by_name
from konverge.lab.kong.wire.trust import TlsFiles, build_context, read_file

if TYPE_CHECKING:
    from konverge.lab.kong.node import StandInKong


@cache
def default_pair() -> tuple[bytes, bytes]:
    """Return a self-signed certificate for localhost, as Kong makes one, and its key; one per process."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Kong"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost"),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=7300))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), pem_key


def load_role(node: StandInKong, role: str, http2: bool, previous: Mapping[str, Security]) -> Security:
    """Load the files of one kind of listener. Raises BrokenFiles with the words of nginx or Kong."""
    settings = node.settings
    cert_path, key_path = (
        (settings.admin_cert, settings.admin_key) if role == "admin" else (settings.proxy_cert, settings.proxy_key)
    )
    certificate, key = default_pair()
    if cert_path is not None and key_path is not None:
        certificate = read_file(cert_path, str(cert_path))
        key = read_file(key_path, str(key_path))
    verify = settings.verify_client if role == "admin" else "off"
    bundle = b""
    if verify != "off":
        if settings.client_ca is None:
            raise BrokenFiles("no ssl_client_certificate for ssl_verify_client")
        bundle = read_file(settings.client_ca, str(settings.client_ca))
    loaded = load_security(
        TlsFiles(
            certificate,
            key,
            bundle,
            verify,
            settings.verify_depth,
            settings.session_tickets,
            settings.session_cache,
            int(settings.session_timeout),
            http2,
            settings.admin_protocols if role == "admin" else DEFAULT_PROTOCOLS,
        ),
        _previous(previous, f"{role} h2" if http2 else role),
        cert_path=str(cert_path or ""),
        ca_path=str(settings.client_ca or ""),
    )
    loaded.clock_offset = lambda: node.faults.clock_offset
    if role == "proxy":
        select_by_name(loaded, ServerNames(node, http2).choose)
    return loaded


def _previous(securities: Mapping[str, Security], name: str) -> TlsSecurity | None:
    found = securities.get(name)
    return found if isinstance(found, TlsSecurity) else None


class ServerNames:
    """Certificates of the configuration by server name."""

    def __init__(self, node: StandInKong, http2: bool) -> None:
        self._node = node
        self._http2 = http2
        self._contexts: dict[str, SSL.Context | None] = {}
        self._number = -1

    def choose(self, name: str) -> SSL.Context | None:
        """Return the context for a server name; None for the default certificate."""
        snapshot = self._node.snapshot
        if snapshot.number != self._number:
            self._contexts.clear()
            self._number = snapshot.number
        first, _, rest = name.partition(".")
        candidates = (name, f"*.{rest}", f"{name.rpartition('.')[0]}.*", "*")
        names = {sni["name"].lower(): sni["certificate"]["id"] for sni in snapshot.list("snis")}
        identity = next((names[candidate] for candidate in candidates if candidate in names), None)
        if identity is None or not first:
            return None
        if identity not in self._contexts:
            self._contexts[identity] = self._build(snapshot.entities.get("certificates", {}).get(identity))
        return self._contexts[identity]

    def _build(self, entity: dict[str, str] | None) -> SSL.Context | None:
        if entity is None:
            return None
        try:
            files = TlsFiles(entity["cert"].encode(), entity["key"].encode(), http2=self._http2)
            return build_context(files, [], "").ssl
        except BrokenFiles:
            return None
