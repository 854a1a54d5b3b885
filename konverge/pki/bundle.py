"""Trust bundles: the authorities that a listener or a client believes, checked before anybody loads them.

nginx loads a bundle with text between its certificates up to that text and says nothing; a missing authority
then shows as refused clients. So a bundle is checked as a whole here, and written in one plain form.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from konverge.errors import Invalid
from konverge.pki.inspecting import Certificate, describe, parse_pem, to_pem

BAD_BUNDLE = "reference/errors.md#bad-trust-bundle"


@dataclass(frozen=True)
class TrustBundle:
    """Authorities in the order of trust; made by :func:`read_bundle` and :func:`build_bundle` only."""

    certificates: tuple[x509.Certificate, ...]

    @property
    def authorities(self) -> tuple[Certificate, ...]:
        """What the certificates say, in order."""
        return tuple(map(describe, self.certificates))

    @property
    def pem(self) -> bytes:
        """The bundle as one PEM text, nothing between the certificates."""
        return to_pem(self.certificates)

    @property
    def fingerprints(self) -> frozenset[str]:
        """SHA-256 fingerprints of all authorities."""
        return frozenset(authority.fingerprint for authority in self.authorities)

    def overlap(self, other: TrustBundle, now: datetime) -> TrustBundle:
        """Return a bundle that trusts both sides: ours first, then what is new in the other."""
        added = [c for c in other.certificates if describe(c).fingerprint not in self.fingerprints]
        return build_bundle((*self.certificates, *added), now)

    def without(self, fingerprints: Iterable[str], now: datetime) -> TrustBundle:
        """Return the bundle without some authorities; Invalid where none would be left."""
        removed = frozenset(fingerprints)
        return build_bundle((c for c in self.certificates if describe(c).fingerprint not in removed), now)

    def without_expired(self, now: datetime) -> TrustBundle:
        """Return the bundle without authorities that have expired."""
        return build_bundle((c for c in self.certificates if c.not_valid_after_utc >= now), now)


def read_bundle(pem: bytes, now: datetime, what: str = "trust bundle") -> TrustBundle:
    """Read a bundle; Invalid, naming the certificate, unless all of it is fit to be trusted."""
    return build_bundle(parse_pem(pem, what), now, what)


def build_bundle(certificates: Iterable[x509.Certificate], now: datetime, what: str = "trust bundle") -> TrustBundle:
    """Build a bundle; Invalid where it is empty or holds a duplicate, a leaf or what has expired.

    Two keys under one subject are refused too: clients could resume sessions made under the retired one.
    """
    bundle = TrustBundle(tuple(certificates))
    if not bundle.certificates:
        raise _invalid(f"{what} is empty")
    seen: dict[str, str] = {}
    fingerprints: set[str] = set()
    for number, authority in enumerate(bundle.authorities, 1):
        if fault := _find_fault(authority, now, seen, fingerprints):
            raise _invalid(f"{what}: certificate {number} ({authority.subject}) {fault}")
        seen[authority.subject] = authority.key_fingerprint
        fingerprints.add(authority.fingerprint)
    return bundle


def _find_fault(authority: Certificate, now: datetime, seen: dict[str, str], fingerprints: set[str]) -> str | None:
    if not authority.authority:
        return "is not the certificate of an authority"
    if now > authority.not_after:
        return f"expired at {authority.not_after:%FT%TZ}"
    if authority.fingerprint in fingerprints:
        return "is there twice"
    if seen.get(authority.subject, authority.key_fingerprint) != authority.key_fingerprint:
        return "has the subject of another authority with another key"
    return None


def _invalid(message: str) -> Invalid:
    return Invalid(message, reason="BadTrustBundle", hint=BAD_BUNDLE)
