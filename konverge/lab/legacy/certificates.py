"""Throw-away certificates for the lab's webhook and sample hosts: ECDSA P-256, backdated by five minutes."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

BACKDATED = timedelta(minutes=5)
"""Covers clocks that differ between the machine that issues and the one that verifies."""
LIFETIME = timedelta(days=3650)
"""What the chart's genCA and genSignedCert are called with."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key; the key does not show in its repr."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    def certificate_pem(self) -> bytes:
        """Return the certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        """Return the private key as unencrypted PKCS #8 PEM."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def secret_data(self) -> dict[str, str]:
        """Return the ``data`` of a Secret of type kubernetes.io/tls."""
        return {
            "tls.crt": base64.b64encode(self.certificate_pem()).decode(),
            "tls.key": base64.b64encode(self.key_pem()).decode(),
        }


def create_authority(name: str) -> KeyPair:
    """Create a self-signed authority with the common name ``name``."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, key).issuer_name(_subject(name))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return KeyPair(builder.sign(key, hashes.SHA256()), key)


def issue_server(authority: KeyPair, names: list[str]) -> KeyPair:
    """Issue a server certificate for DNS ``names``; the first is the common name."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(names[0], key)
        .issuer_name(authority.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )
    return KeyPair(builder.sign(authority.key, hashes.SHA256()), key)


def _subject(name: str) -> x509.Name:
    # RFC 5280: a common name has at most 64 characters.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _builder(name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    start = datetime.now(UTC) - BACKDATED
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + LIFETIME)
    )
