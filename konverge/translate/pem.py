"""PEM: certificate chains with their keys, and CA certificates. No message ever shows key material."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
CACHED = 4096
"""Parsed pairs kept; a pair costs about 100 microseconds to check."""


class PemError(ValueError):
    """The text is not what it should be."""


@lru_cache(maxsize=CACHED)
def check_pair(certificate: bytes, key: bytes) -> str | None:
    """Return why a chain and a private key cannot be used together; None where they can.

    Expired certificates and small keys are fine, as they are for Kong.
    """
    try:
        chain = x509.load_pem_x509_certificates(certificate)
        private = load_pem_private_key(key, password=None)
        ours = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        theirs = chain[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm, IndexError):
        return "the certificate or the key cannot be parsed"
    return None if ours == theirs else "the certificate and the key do not belong together"


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate, re-encoded, and when it expires."""

    text: str
    expires: datetime


@lru_cache(maxsize=CACHED)
def read_authority(content: bytes) -> Authority:
    """Return the one CA certificate of a PEM text; PemError where it is anything else."""
    blocks = list(_BLOCK.finditer(content))
    if len(blocks) != 1 or blocks[0].group(1) != b"CERTIFICATE":
        raise PemError("must hold exactly one CERTIFICATE block")
    try:
        certificate = x509.load_pem_x509_certificate(blocks[0].group(0))
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        raise PemError("is no CA certificate") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PemError("holds a certificate that cannot be parsed") from error
    if not constraints.value.ca:
        raise PemError("is no CA certificate")
    text = certificate.public_bytes(Encoding.PEM).decode()
    return Authority(text, certificate.not_valid_after_utc.astimezone(UTC))
