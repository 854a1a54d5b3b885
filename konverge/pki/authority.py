"""Certificate authorities of a fleet, and the leaves they issue; every time is passed in.

Each generation of an authority has a subject of its own: nginx binds resumable TLS sessions to the names of
the authorities, not to their keys, so a successor of the same name would let old sessions in. Nothing depends
on extensions that the TLS stacks of Kong or Python do not read.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from konverge.errors import Invalid
from konverge.pki.inspecting import CLOCK_SKEW, Certificate, describe, parse_pem, to_pem
from konverge.pki.keys import KeyType, PrivateKey

AUTHORITY_LIFETIME = timedelta(days=365)
LEAF_LIFETIME = timedelta(days=30)
LONGEST_NAME = 64
"""Characters of a common name (RFC 5280, ub-common-name)."""
LONGEST_LABEL = 63
"""Octets of one label of a DNS name (RFC 1035, 2.3.4)."""
ORGANIZATION = "konverge"
CONTROLLER = "controller"
PROXIES = "proxies"
"""The two roles that a fleet has leaves for."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key and, where there are any, intermediates; the leaf comes first."""

    chain: tuple[x509.Certificate, ...] = field(repr=False)
    key: PrivateKey

    @property
    def certificate(self) -> Certificate:
        """What the leaf says."""
        return describe(self.chain[0])

    @property
    def chain_pem(self) -> bytes:
        """The chain in PEM, leaf first, as nginx and Python want it."""
        return to_pem(self.chain)

    @classmethod
    def from_pem(cls, chain: bytes, key: bytes, what: str = "identity") -> Identity:
        """Read an identity; Invalid where a part cannot be read or the key is not that of the leaf."""
        certificates = parse_pem(chain, f"{what}: certificate")
        private = PrivateKey.from_pem(key, f"{what}: private key")
        if private.fingerprint != describe(certificates[0]).key_fingerprint:
            raise Invalid(
                f"{what}: the private key does not belong to the certificate",
                reason="KeyMismatch",
                hint="reference/errors.md#key-mismatch",
            )
        return cls(certificates, private)


@dataclass(frozen=True, slots=True)
class LeafRequest:
    """What a leaf is to say. ``purposes`` are clientAuth and serverAuth; ``role`` tells whose it is."""

    name: str
    purposes: tuple[str, ...]
    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    role: str = ""


def request_controller(fleet: str) -> LeafRequest:
    """Return the request for the client certificate of a fleet's controller."""
    return LeafRequest(f"konverge controller {fleet}", ("clientAuth",), role=CONTROLLER)


def request_proxies(
    service: str,
    namespace: str,
    *,
    pods: Iterable[str] = (),
    cluster_domain: str = "",
    ip_addresses: Iterable[str] = (),
) -> LeafRequest:
    """Return the request for the server certificate of proxies behind an Admin Service.

    It covers the Service and every pod as ``<pod>.<service>.<namespace>.svc``; with ``cluster_domain`` the
    same names below it as well.
    """
    base = f"{service}.{namespace}.svc"
    bases = [base, f"{base}.{cluster_domain}"] if cluster_domain else [base]
    names = [name for b in bases for name in (f"*.{b}", b, *(f"{pod_label(pod)}.{b}" for pod in pods))]
    return LeafRequest(base, ("serverAuth",), tuple(names), tuple(ip_addresses), PROXIES)


def name_server(pod: str, service: str, namespace: str) -> str:
    """Return the name under which one proxy is verified, whatever address is dialled."""
    return f"{pod_label(pod)}.{service}.{namespace}.svc"


def pod_label(pod: str) -> str:
    """Return a pod's name as one DNS label: a wildcard covers one label only, and 63 octets at most."""
    if "." not in pod and len(pod) <= LONGEST_LABEL:
        return pod
    return "pod-" + hashlib.sha256(pod.encode()).hexdigest()[:32]


class Authority:
    """A certificate authority that signs leaves; its key is held as :class:`PrivateKey` does."""

    def __init__(self, identity: Identity) -> None:
        certificate = identity.certificate
        if not certificate.authority:
            raise Invalid(f"{certificate.subject} is not the certificate of an authority", reason="NotAnAuthority")
        self.identity = identity

    @classmethod
    def create(
        cls,
        fleet: str,
        now: datetime,
        *,
        lifetime: timedelta = AUTHORITY_LIFETIME,
        key_type: KeyType | str = KeyType.ECDSA,
    ) -> Authority:
        """Create a new generation: self-signed, path length 0, for signing certificates only."""
        key = PrivateKey.generate(key_type)
        name = _name(_generation(fleet, now))
        builder = _start(name, name, key, now, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(authority=True), critical=True)
        builder = builder.add_extension(_own_identifier(key), critical=False)
        return cls(Identity((_sign(builder, key),), key))

    @property
    def certificate(self) -> Certificate:
        """What the authority's certificate says."""
        return self.identity.certificate

    @property
    def pem(self) -> bytes:
        """The authority's certificate in PEM: what others trust."""
        return to_pem(self.identity.chain[:1])

    def issue(
        self,
        request: LeafRequest,
        now: datetime,
        *,
        lifetime: timedelta = LEAF_LIFETIME,
        key_type: KeyType | str = KeyType.ECDSA,
    ) -> Identity:
        """Issue a leaf with a key of its own; it never outlives the authority. Invalid where that has expired."""
        if not self.certificate.is_valid_at(now):
            raise Invalid(
                f"The authority {self.certificate.subject} is not valid at {now:%FT%TZ}",
                reason="AuthorityExpired",
                hint="reference/errors.md#authority-expired",
            )
        key = PrivateKey.generate(key_type)
        issuer = self.identity.chain[0]
        lifetime = min(lifetime, issuer.not_valid_after_utc - now)
        builder = _start(_name(request.name[:LONGEST_NAME]), issuer.subject, key, now, lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(_purposes(request.purposes)), critical=False)
        if names := _alternative_names(request):
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(_own_identifier(key), critical=False)
        builder = builder.add_extension(_issuer_identifier(self.identity.key), critical=False)
        return Identity((_sign(builder, self.identity.key), *self.identity.chain[1:]), key)


def _generation(fleet: str, now: datetime) -> str:
    """Return a common name that no other generation has: fleet, time and 32 random bits."""
    tail = f" {now:%Y%m%dT%H%M%SZ} {secrets.token_hex(4)}"
    room = LONGEST_NAME - len(f"{ORGANIZATION} ") - len(tail)
    short = fleet if len(fleet) <= room else f"{fleet[: room - 9]}-{hashlib.sha256(fleet.encode()).hexdigest()[:8]}"
    return f"{ORGANIZATION} {short}{tail}"


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _start(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer)
    builder = builder.public_key(key.signer.public_key()).serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - min(CLOCK_SKEW, lifetime / 2)).not_valid_after(now + lifetime)


def _sign(builder: x509.CertificateBuilder, key: PrivateKey) -> x509.Certificate:
    signer = key.signer
    return builder.sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _purposes(names: tuple[str, ...]) -> list[ObjectIdentifier]:
    known = {"clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH, "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH}
    return [known[name] for name in names]


def _alternative_names(request: LeafRequest) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in request.dns_names]
    return names + [x509.IPAddress(ipaddress.ip_address(address)) for address in request.ip_addresses]


def _own_identifier(key: PrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.signer.public_key())


def _issuer_identifier(key: PrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.signer.public_key())
