"""Issuers: who signs the leaves of a fleet, behind one interface, and what a leaf from elsewhere has to be.

The fleet's own authority is one issuer; the others are somebody else's: they sign when they like, with an
authority that they exchange when they like, and what they hand over is checked each time it is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from typing_extensions import override

from konverge.errors import Invalid, NotFound
from konverge.pki.authority import LEAF_LIFETIME, Authority, Identity, LeafRequest
from konverge.pki.bundle import TrustBundle, build_bundle, read_bundle
from konverge.pki.files import CERTIFICATE_FILE, CONTROLLER_BUNDLE_FILE, KEY_FILE
from konverge.pki.inspecting import describe
from konverge.pki.keys import KeyType
from konverge.pki.keystore import KeyStore, StoredFiles

UNFIT = "reference/errors.md#issued-unfit"
MISSING = "reference/errors.md#issued-missing"
SMALLEST_RSA = 2048
"""Bits (NIST SP 800-131A)."""


class Issuer(ABC):
    """Issues leaves and says whom to trust for them.

    ``owns_authority``: the signing key is the fleet's own, so a rotation makes the successor. Where it is False
    a rotation follows what :meth:`trust` returns and adopts what :meth:`offer` shows.
    """

    owns_authority: bool

    @abstractmethod
    async def issue(self, request: LeafRequest) -> Identity:
        """Return a leaf made for this call, or the newest there is where the issuer takes no orders."""

    @abstractmethod
    async def offer(self, request: LeafRequest) -> Identity | None:
        """Return the leaf that lies ready without being asked for, None where leaves are made on demand only."""

    @abstractmethod
    async def trust(self) -> TrustBundle:
        """Return the authorities that leaves of this issuer lead to, now and next."""


class BuiltInIssuer(Issuer):
    """The fleet's own authority; ``successor`` is the one that takes over, and signs from then on."""

    owns_authority = True

    def __init__(
        self,
        current: Authority,
        successor: Authority | None,
        clock: Callable[[], datetime],
        *,
        lifetime: timedelta = LEAF_LIFETIME,
        key_type: KeyType | str = KeyType.ECDSA,
    ) -> None:
        self._authorities = [current, *([successor] if successor else [])]
        self._clock = clock
        self._lifetime = lifetime
        self._key_type = key_type

    async def issue(self, request: LeafRequest) -> Identity:
        """Sign a new leaf with a key of its own."""
        authority = self._authorities[-1]
        return authority.issue(request, self._clock(), lifetime=self._lifetime, key_type=self._key_type)

    @override
    async def offer(self, request: LeafRequest) -> Identity | None:
        """Return None: nothing is made before it is needed."""
        return None

    async def trust(self) -> TrustBundle:
        """Return the authority and, during a rotation, its successor."""
        return build_bundle((authority.identity.chain[0] for authority in self._authorities), self._clock())


class GivenIssuer(Issuer):
    """Secrets that somebody else fills: tls.crt, tls.key and ca.crt, one for each role.

    ``names`` maps a role to its Secret.
    """

    owns_authority = False

    def __init__(self, store: KeyStore, names: Mapping[str, str], clock: Callable[[], datetime]) -> None:
        self._store = store
        self._names = names
        self._clock = clock

    async def issue(self, request: LeafRequest) -> Identity:
        """Return what the Secret holds; NotFound or Invalid name the Secret and the field."""
        issued = await self._require(request.role)
        return read_issued(issued.files, request, self._clock(), issued.place).identity

    async def offer(self, request: LeafRequest) -> Identity | None:
        """Return what the Secret holds, None where there is no Secret yet."""
        if await self._store.load(self._names[request.role]) is None:
            return None
        return await self.issue(request)

    async def trust(self) -> TrustBundle:
        """Return the authorities of all Secrets."""
        bundles = [read_trust(await self._require(role), self._clock()) for role in self._names]
        return merge_bundles(bundles, self._clock())

    async def _require(self, role: str) -> StoredFiles:
        stored = await self._store.load(self._names[role])
        if stored is None:
            raise NotFound(
                f"{self._store.locate(self._names[role])} does not exist: the certificate of the {role} is expected"
                f" there, with {CERTIFICATE_FILE}, {KEY_FILE} and {CONTROLLER_BUNDLE_FILE}",
                reason="IssuedMissing",
                hint=MISSING,
            )
        return stored


@dataclass(frozen=True, slots=True)
class Issued:
    """A checked leaf and the authorities that came with it."""

    identity: Identity
    trust: TrustBundle


def read_issued(files: Mapping[str, bytes], request: LeafRequest, now: datetime, what: str) -> Issued:
    """Read what an issuer handed over; Invalid names the object, the field, and what is wrong with it.

    Checked: the key is that of the leaf, dates, usages, every name that is asked for, the chain up to ca.crt.
    """
    for name in (CERTIFICATE_FILE, KEY_FILE, CONTROLLER_BUNDLE_FILE):
        if not files.get(name):
            why = " (an issuer without an authority to trust, such as ACME, cannot be used)" if "ca" in name else ""
            raise _unfit(f"{what}: {name} is missing or empty{why}")
    trust = read_bundle(files[CONTROLLER_BUNDLE_FILE], now, f"{what}: {CONTROLLER_BUNDLE_FILE}")
    identity = Identity.from_pem(files[CERTIFICATE_FILE], files[KEY_FILE], what)
    if fault := find_fault(identity, request, trust, now):
        raise _unfit(f"{what}: {CERTIFICATE_FILE} {fault}")
    return Issued(identity, trust)


def read_trust(stored: StoredFiles, now: datetime) -> TrustBundle:
    """Read the authorities that came with a leaf."""
    what = f"{stored.place}: {CONTROLLER_BUNDLE_FILE}"
    if not stored.files.get(CONTROLLER_BUNDLE_FILE):
        raise _unfit(f"{what} is missing or empty")
    return read_bundle(stored.files[CONTROLLER_BUNDLE_FILE], now, what)


def merge_bundles(bundles: list[TrustBundle], now: datetime) -> TrustBundle:
    """Return one bundle of all authorities, each once."""
    merged = bundles[0]
    for bundle in bundles[1:]:
        merged = merged.overlap(bundle, now)
    return merged


def find_fault(identity: Identity, request: LeafRequest, trust: TrustBundle, now: datetime) -> str:
    """Return what is wrong with a leaf, "" where it is what was asked for and leads to a trusted authority."""
    leaf = identity.certificate
    if leaf.authority:
        return "is the certificate of an authority, not a leaf"
    if now < leaf.not_before:
        return f"is valid only from {leaf.not_before:%FT%TZ}"
    if now > leaf.not_after:
        return f"expired at {leaf.not_after:%FT%TZ}"
    if set(leaf.purposes) != set(request.purposes):
        shown = ", ".join(leaf.purposes) or "every purpose"
        return f"is good for {shown}; it has to be for {', '.join(request.purposes)} alone"
    missing = [name for name in (*request.dns_names, *request.ip_addresses) if not leaf.covers(name)]
    if missing:
        return f"does not name {', '.join(missing)}"
    return _find_weakness(identity.chain[0]) or _find_break(identity.chain, trust, now)


def _find_weakness(leaf: x509.Certificate) -> str:
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < SMALLEST_RSA:
        return f"has an RSA key of {key.key_size} bits; {SMALLEST_RSA} are the least"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < 256:
        return f"has a key on {key.curve.name}; P-256 is the least"
    return ""


def _find_break(chain: tuple[x509.Certificate, ...], trust: TrustBundle, now: datetime) -> str:
    """Walk from the leaf to a trusted authority; return where the way ends."""
    last = chain[0]
    for certificate in (*chain[1:], None):
        if any(_signed(last, authority) for authority in trust.certificates):
            return ""
        if certificate is None:
            break
        shown = describe(certificate)
        if not _signed(last, certificate) or not shown.authority:
            return f"holds {shown.subject}, which did not sign {describe(last).subject}"
        if not shown.is_valid_at(now):
            return f"holds {shown.subject}, which is not valid now"
        last = certificate
    return f"does not lead to an authority of {CONTROLLER_BUNDLE_FILE}: nobody there signed {describe(last).subject}"


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _unfit(message: str) -> Invalid:
    return Invalid(message, reason="IssuedUnfit", hint=UNFIT)
