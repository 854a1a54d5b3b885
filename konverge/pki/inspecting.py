"""Reads certificates into frozen values; the clock is passed in."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from konverge.errors import Invalid
from konverge.model.base import Value
from konverge.pki.keys import hash_public_key

CLOCK_SKEW = timedelta(minutes=5)
"""How far a new certificate is backdated, for clocks that are behind."""
RENEWAL_POINT = 2 / 3
"""Part of the lifetime after which a certificate is renewed, as cert-manager and the kubelet do."""
BAD_CERTIFICATE = "reference/errors.md#bad-certificate"

Extension = TypeVar("Extension", bound=x509.ExtensionType)

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]*-----END CERTIFICATE-----")
_PURPOSES = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
}


class Certificate(Value):
    """What a certificate says. Fingerprints are SHA-256 in hex; names are RFC 4514; times are UTC."""

    subject: str
    issuer: str
    serial: str
    not_before: datetime
    not_after: datetime
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    authority: bool = False
    fingerprint: str
    key_fingerprint: str

    def is_valid_at(self, now: datetime) -> bool:
        """Whether ``now`` lies within the validity."""
        return self.not_before <= now <= self.not_after

    def covers(self, name: str) -> bool:
        """Whether a client that expects ``name`` accepts this certificate (RFC 9525: one left-most wildcard)."""
        try:
            return str(ipaddress.ip_address(name)) in self.ip_addresses
        except ValueError:
            pass
        wanted = name.lower().rstrip(".")
        _, _, parent = wanted.partition(".")
        names = {n.lower() for n in self.dns_names}
        return wanted in names or (bool(parent) and f"*.{parent}" in names)


def describe(certificate: x509.Certificate) -> Certificate:
    """Return what a parsed certificate says."""
    alternative = _extension(certificate, x509.SubjectAlternativeName)
    usages = _extension(certificate, x509.ExtendedKeyUsage)
    constraints = _extension(certificate, x509.BasicConstraints)
    return Certificate(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        dns_names=tuple(alternative.get_values_for_type(x509.DNSName)) if alternative else (),
        ip_addresses=tuple(map(str, alternative.get_values_for_type(x509.IPAddress))) if alternative else (),
        purposes=tuple(_PURPOSES.get(usage, usage.dotted_string) for usage in usages) if usages else (),
        authority=bool(constraints and constraints.ca),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        key_fingerprint=hash_public_key(certificate.public_key()),
    )


def inspect_der(der: bytes, what: str = "certificate") -> Certificate:
    """Describe one certificate in DER; Invalid where it is none."""
    try:
        return describe(x509.load_der_x509_certificate(der))
    except ValueError as error:
        raise _invalid(f"{what} cannot be read: {error}") from error


def parse_pem(pem: bytes, what: str = "certificate") -> tuple[x509.Certificate, ...]:
    """Return all certificates of a PEM text, in order.

    Invalid where there is none, where one cannot be read, or where there is anything but certificates and
    white space: nginx ends reading at such text without a word and trusts only what came before.
    """
    blocks = _BLOCK.findall(pem)
    if line := _find_junk(pem):
        raise _invalid(f"{what} contains something that is no certificate, at line {line}")
    if not blocks:
        raise _invalid(f"{what} contains no certificate")
    found = []
    for number, block in enumerate(blocks, 1):
        try:
            found.append(x509.load_pem_x509_certificate(block))
        except ValueError as error:
            raise _invalid(f"{what}: certificate {number} cannot be read: {error}") from error
    return tuple(found)


def inspect_pem(pem: bytes, what: str = "certificate") -> tuple[Certificate, ...]:
    """Describe all certificates of a PEM text, in order; Invalid as in :func:`parse_pem`."""
    return tuple(map(describe, parse_pem(pem, what)))


def to_pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """Return certificates as one PEM text."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def find_renewal(certificate: Certificate) -> datetime:
    """Return when to renew: after two thirds of the lifetime, counted from when it was issued.

    A certificate of ours is backdated by the clock skew, or by a third of its validity where that is less.
    """
    validity = certificate.not_after - certificate.not_before
    issued = certificate.not_before + min(CLOCK_SKEW, validity / 3)
    return issued + (certificate.not_after - issued) * RENEWAL_POINT


def _find_junk(pem: bytes) -> int:
    """Return the line of the first text that is no certificate block, 0 where there is none."""
    blanked = _BLOCK.sub(lambda block: b"\n" * block[0].count(b"\n"), pem)
    return next((n for n, line in enumerate(blanked.split(b"\n"), 1) if line.strip()), 0)


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _invalid(message: str) -> Invalid:
    return Invalid(message, reason="BadCertificate", hint=BAD_CERTIFICATE)
