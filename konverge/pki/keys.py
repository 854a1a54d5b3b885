"""Private keys: made, read and held so that no repr, log line, pickle or copy ever shows one."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from konverge.errors import Invalid

RSA_BITS = 3072
"""Bits of an RSA key: 128 bits of security, as P-256 has (NIST SP 800-57 part 1, table 2)."""
BAD_KEY = "reference/errors.md#bad-private-key"

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


class KeyType(StrEnum):
    """The kinds of key that are made; others of these families are read as well."""

    ECDSA = "ecdsa-p256"
    ED25519 = "ed25519"
    RSA = "rsa-3072"


class PrivateKey:
    """A private key. Its PEM form leaves it only through :meth:`to_pem`, which is called where it is needed."""

    __slots__ = ("_key",)

    def __init__(self, key: Key) -> None:
        self._key = key

    @classmethod
    def generate(cls, kind: KeyType | str = KeyType.ECDSA) -> PrivateKey:
        """Make a new key."""
        match KeyType(kind):
            case KeyType.ECDSA:
                return cls(ec.generate_private_key(ec.SECP256R1()))
            case KeyType.ED25519:
                return cls(ed25519.Ed25519PrivateKey.generate())
            case KeyType.RSA:
                return cls(rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS))

    @classmethod
    def from_pem(cls, pem: bytes, what: str = "private key") -> PrivateKey:
        """Read an unencrypted PEM key; Invalid where it is none. The message never quotes the key."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise Invalid(f"{what} is not an unencrypted PEM key", reason="BadPrivateKey", hint=BAD_KEY) from None
        if not isinstance(key, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, rsa.RSAPrivateKey)):
            raise Invalid(f"{what} is neither ECDSA, Ed25519 nor RSA", reason="BadPrivateKey", hint=BAD_KEY)
        return cls(key)

    def to_pem(self) -> bytes:
        """Return the key in PKCS#8 PEM."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def signer(self) -> Key:
        """The key object to sign with."""
        return self._key

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key's SubjectPublicKeyInfo, hex: equal to that of a matching certificate."""
        return hash_public_key(self._key.public_key())

    def __repr__(self) -> str:
        return f"PrivateKey(public sha256:{self.fingerprint[:16]})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not pickled")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrivateKey) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)


def hash_public_key(key: object) -> str:
    """Return the SHA-256 of a public key's SubjectPublicKeyInfo, hex."""
    encode = key.public_bytes  # type: ignore[attr-defined]  # cryptography has no common base for public keys
    der: bytes = encode(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
