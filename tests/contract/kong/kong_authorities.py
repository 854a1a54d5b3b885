"""Certificates like those of the recordings: good, expired, not yet valid, wrong CA, wrong usage, self-signed."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

CLIENT = x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = x509.oid.ExtendedKeyUsageOID.SERVER_AUTH
Pair = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]


@dataclass
class Authorities:
    """A directory full of PEM files."""

    directory: Path

    def path(self, name: str) -> Path:
        return self.directory / name

    def issue(
        self,
        name: str,
        subject: str,
        issuer: Pair | None = None,
        *,
        ca: bool = False,
        usage: x509.ObjectIdentifier | None = None,
        days: tuple[float, float] = (-1, 30),
        address: str = "",
    ) -> Pair:
        """Issue a certificate, write NAME.crt and NAME.key."""
        key = ec.generate_private_key(ec.SECP256R1())
        own = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(own)
            .issuer_name(issuer[1].subject if issuer else own)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if address:
            names = [x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName("kong-admin")]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(issuer[0] if issuer else key, hashes.SHA256())
        self.path(f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.path(f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return key, certificate


def make_authorities(directory: Path, address: str) -> Authorities:
    """Make the whole set."""
    made = Authorities(directory)
    server_ca = made.issue("server-ca", "test server CA", ca=True)
    client_ca = made.issue("client-ca", "test client CA", ca=True)
    wrong_ca = made.issue("wrong-ca", "wrong CA", ca=True)
    made.issue("server", "kong-admin", server_ca, usage=SERVER, address=address)
    made.issue("client", "client", client_ca, usage=CLIENT)
    made.issue("client-expired", "client", client_ca, usage=CLIENT, days=(-10, -1))
    made.issue("client-notyet", "client", client_ca, usage=CLIENT, days=(5, 30))
    made.issue("client-wrongca", "client", wrong_ca, usage=CLIENT)
    made.issue("client-serverauth", "client", client_ca, usage=SERVER)
    return made
