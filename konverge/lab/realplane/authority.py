"""The authority of a control plane: it signs servers, clients and kubelets. Certificates are valid for a week."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from konverge.lab.realplane.files import Files, write_secret

LIFETIME = datetime.timedelta(days=7)
BACKDATE = datetime.timedelta(minutes=5)
"""Clocks of a container and its host may differ a little."""
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


class Authority:
    """Signs certificates; its key is kept in ``ca.key``, because kubelets and controllers sign with it too."""

    def __init__(self, files: Files) -> None:
        self._files = files
        certificate, key = files.path("ca.crt"), files.path("ca.key")
        if not certificate.exists() or not key.exists():
            _create_authority(files)
        self.certificate = x509.load_pem_x509_certificate(certificate.read_bytes())
        loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self._key = loaded

    def issue(
        self,
        name: str,
        user: str,
        *,
        groups: Iterable[str] = (),
        hosts: Iterable[str] = (),
        usages: Iterable[x509.ObjectIdentifier] = (CLIENT,),
    ) -> None:
        """Write ``name``.crt and ``name``.key for a user (CN), groups (O) and host names or addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        builder = (
            _start_certificate(x509.Name(subject), self.certificate.subject)
            .public_key(key.public_key())
            .add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        if names := [_name_host(host) for host in hosts]:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        write_secret(self._files.path(f"{name}.key"), encode_key(key))
        self._files.path(f"{name}.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def encode_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as unencrypted PEM (PKCS 8)."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _create_authority(files: Files) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "konverge lab authority")])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    signed = (
        _start_certificate(name, name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    write_secret(files.path("ca.key"), encode_key(key))
    files.path("ca.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def _start_certificate(subject: x509.Name, issuer: x509.Name) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + LIFETIME)
    )


def _name_host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
