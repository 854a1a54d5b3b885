"""PEM fields: certificates and keys, with the words of OpenSSL as Kong passes them on."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

BAD_KEY = (
    "invalid key: pkey.new:load_key: error:1E08010C:DECODER routines:OSSL_DECODER_from_bio:unsupported:"
    "crypto/encode_decode/decoder_lib.c:103:"
)
BAD_CERTIFICATE = (
    "invalid certificate: x509.new: error:680008E:asn1 encoding routines:asn1_d2i_read_bio:not enough data:"
    "crypto/asn1/a_d2i_fp.c:155:"
)
MISMATCH = "certificate does not match key"
REFERENCE = "{vault://"


@lru_cache(maxsize=1024)
def _load_certificate(text: str) -> bytes | None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        key = x509.load_pem_x509_certificate(text.encode()).public_key()
    except ValueError:
        return None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _load_key(text: str) -> bytes | None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    try:
        key = load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def check_certificate(value: Any) -> str | None:
    """A PEM certificate, or a reference to a vault."""
    if value.startswith(REFERENCE) or _load_certificate(value) is not None:
        return None
    return BAD_CERTIFICATE


def check_key(value: Any) -> str | None:
    """A PEM private key, or a reference to a vault."""
    if value.startswith(REFERENCE) or _load_key(value) is not None:
        return None
    return BAD_KEY


def check_pair(certificate: Any, key: Any) -> str | None:
    """The key belongs to the certificate."""
    if not certificate or not key or certificate.startswith(REFERENCE) or key.startswith(REFERENCE):
        return None
    return None if _load_certificate(certificate) == _load_key(key) else MISMATCH


def digest_certificate(value: str) -> str | None:
    """Return the SHA-256 of a certificate in hex, as ``cert_digest`` shows it."""
    import hashlib

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        return hashlib.sha256(x509.load_pem_x509_certificate(value.encode()).public_bytes(Encoding.DER)).hexdigest()
    except ValueError:
        return None
