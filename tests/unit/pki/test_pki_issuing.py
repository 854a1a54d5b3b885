"""What somebody else issued is taken only where it is what was asked for; what is wrong is named with its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from konverge.errors import Invalid, KonvergeError, NotFound
from konverge.pki.authority import (
    CONTROLLER,
    PROXIES,
    Authority,
    Identity,
    LeafRequest,
    request_controller,
    request_proxies,
)
from konverge.pki.inspecting import to_pem
from konverge.pki.issuing import BuiltInIssuer, GivenIssuer, read_issued
from konverge.pki.keys import PrivateKey
from konverge.pki.keystore import SecretStore
from tests.unit.operate.fake_kube import FakeKube

ASKED = request_proxies("shop-admin", "kong")
PLACE = "Secret kong/shop-gateway-issued"


def files_of(leaf: Identity, trust: bytes) -> dict[str, bytes]:
    return {"tls.crt": leaf.chain_pem, "tls.key": leaf.key.to_pem(), "ca.crt": trust}


@dataclass
class House:
    """An authority that is not ours and makes what it is told to."""

    now: datetime
    authority: Authority = field(init=False)

    def __post_init__(self) -> None:
        self.authority = Authority.create("house", self.now)

    def make(self, request: LeafRequest = ASKED, at: datetime | None = None, **changes: Any) -> dict[str, bytes]:
        leaf = self.authority.issue(LeafRequest(**{**plain(request), **changes}), at or self.now)
        return files_of(leaf, self.authority.pem)


def plain(request: LeafRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in ("name", "purposes", "dns_names", "ip_addresses", "role")}


@pytest.fixture
def house(now: datetime) -> House:
    return House(now)


def test_what_was_asked_for_is_taken(house: House, now: datetime) -> None:
    issued = read_issued(house.make(), ASKED, now, PLACE)
    assert issued.identity.certificate.purposes == ("serverAuth",)
    assert issued.trust.fingerprints == {house.authority.certificate.fingerprint}


SPOILT: list[tuple[str, Callable[[House, datetime], Mapping[str, bytes]], str]] = [
    ("no key", lambda h, n: {**h.make(), "tls.key": b""}, "tls.key is missing or empty"),
    ("no authority", lambda h, n: {k: v for k, v in h.make().items() if k != "ca.crt"}, "ca.crt is missing"),
    ("other key", lambda h, n: {**h.make(), "tls.key": h.make()["tls.key"]}, "does not belong"),
    ("no pem", lambda h, n: {**h.make(), "tls.key": b"hunter2"}, "private key is not an unencrypted PEM key"),
    ("junk", lambda h, n: {**h.make(), "ca.crt": h.authority.pem + b"junk"}, "ca.crt contains something"),
    ("expired", lambda h, n: expire(h, n), "tls.crt expired at"),
    ("early", lambda h, n: h.make(at=n + timedelta(days=1)), "tls.crt is valid only from"),
    ("other use", lambda h, n: h.make(purposes=("clientAuth",)), "is good for clientAuth"),
    ("both uses", lambda h, n: h.make(purposes=("serverAuth", "clientAuth")), "has to be for serverAuth alone"),
    ("other name", lambda h, n: h.make(dns_names=("a.b",)), r"does not name \*\.shop-admin\.kong\.svc"),
    ("authority", lambda h, n: files_of(h.authority.identity, h.authority.pem), "authority, not a leaf"),
    (
        "other authority",
        lambda h, n: {**h.make(), "ca.crt": Authority.create("other", n).pem},
        "does not lead to an authority of ca.crt",
    ),
    (
        "unrelated intermediate",
        lambda h, n: {
            **h.make(),
            "tls.crt": h.make()["tls.crt"],
            **broken_chain(h, n),
        },
        "which did not sign",
    ),
]


def expire(house: House, now: datetime) -> dict[str, bytes]:
    house.authority = Authority.create("house", now - timedelta(days=40))
    return house.make(at=now - timedelta(days=31))


def broken_chain(house: House, now: datetime) -> dict[str, bytes]:
    leaf = house.authority.issue(ASKED, now)
    stranger, other = Authority.create("stranger", now), Authority.create("other", now)
    chain = Identity((leaf.chain[0], stranger.identity.chain[0]), leaf.key)
    return files_of(chain, other.pem)


@pytest.mark.parametrize(("spoil", "words"), [(s, w) for _, s, w in SPOILT], ids=[name for name, _, _ in SPOILT])
def test_everything_else_is_refused_by_name(
    house: House, now: datetime, spoil: Callable[[House, datetime], Mapping[str, bytes]], words: str
) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        read_issued(spoil(house, now), ASKED, now, PLACE)
    assert caught.value.message.startswith(PLACE)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (lambda: rsa.generate_private_key(public_exponent=65537, key_size=1024), "1024 bits"),
        (lambda: ec.generate_private_key(ec.SECP224R1()), "secp224r1"),
    ],
)
def test_weak_keys_are_refused(house: House, now: datetime, key: Callable[[], Any], words: str) -> None:
    leaf = sign_for(house.authority, key(), now)
    with pytest.raises(Invalid, match=words):
        read_issued(files_of(leaf, house.authority.pem), ASKED, now, PLACE)


def sign_for(authority: Authority, key: Any, now: datetime) -> Identity:
    template = authority.issue(ASKED, now).chain[0]
    builder = x509.CertificateBuilder().subject_name(template.subject).issuer_name(template.issuer)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=2))
    for extension in template.extensions:
        if extension.oid != x509.OID_SUBJECT_KEY_IDENTIFIER:
            builder = builder.add_extension(extension.value, extension.critical)
    return Identity((builder.sign(authority.identity.key.signer, hashes.SHA256()),), PrivateKey(key))


def test_a_leaf_below_an_intermediate_leads_to_the_root(now: datetime) -> None:
    root_key = PrivateKey.generate()
    root = sign_authority("root", root_key, None, root_key, now)
    middle_key = PrivateKey.generate()
    middle = sign_authority("middle", middle_key, root, root_key, now)
    authority = Authority(Identity((middle, root), middle_key))
    leaf = authority.issue(ASKED, now)
    assert len(leaf.chain) == 2, "the root comes along as the authority has it"
    short = Identity((leaf.chain[0], middle), leaf.key)
    assert read_issued(files_of(short, to_pem([root])), ASKED, now, PLACE).identity.certificate == leaf.certificate
    with pytest.raises(Invalid, match="does not lead"):
        read_issued(files_of(Identity((leaf.chain[0],), leaf.key), to_pem([root])), ASKED, now, PLACE)
    late = now + timedelta(days=4)
    renewed = sign_for(authority, PrivateKey.generate().signer, late)
    files = files_of(Identity((renewed.chain[0], middle), renewed.key), to_pem([root]))
    with pytest.raises(Invalid, match="which is not valid now"):
        read_issued(files, ASKED, middle.not_valid_after_utc + timedelta(seconds=1), PLACE)


def sign_authority(
    name: str, key: PrivateKey, issuer: x509.Certificate | None, signer: PrivateKey, now: datetime
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.subject if issuer else subject)
    builder = builder.public_key(key.signer.public_key()).serial_number(x509.random_serial_number())
    lifetime = timedelta(days=5 if issuer else 50)
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(signer.signer, hashes.SHA256())  # type: ignore[arg-type]


async def test_the_built_in_issuer_signs_with_the_successor(now: datetime) -> None:
    old, new = Authority.create("shop", now), Authority.create("shop", now)
    alone, both = (BuiltInIssuer(old, successor, lambda: now) for successor in (None, new))
    request = request_controller("shop")
    assert (await alone.issue(request)).certificate.issuer == old.certificate.subject
    assert (await both.issue(request)).certificate.issuer == new.certificate.subject
    assert await both.offer(request) is None
    assert (await alone.trust()).fingerprints == {old.certificate.fingerprint}
    assert (await both.trust()).fingerprints == {a.certificate.fingerprint for a in (old, new)}
    assert both.owns_authority


async def test_given_secrets_are_read_anew_and_named_when_they_do_not_fit(house: House, now: datetime) -> None:
    store = SecretStore(FakeKube(), "kong")
    names = {CONTROLLER: "c-issued", PROXIES: "p-issued"}
    issuer = GivenIssuer(store, names, lambda: now)
    client = request_controller("shop")
    assert not issuer.owns_authority
    assert await issuer.offer(client) is None
    for call in (issuer.issue(client), issuer.trust()):
        with pytest.raises(NotFound, match="Secret kong/c-issued does not exist") as missing:
            await call
        assert missing.value.reason == "IssuedMissing"
    kept = await store.store("c-issued", house.make(client))
    other = House(now)
    await store.store("p-issued", other.make())
    first = await issuer.issue(client)
    assert (await issuer.trust()).fingerprints == {h.authority.certificate.fingerprint for h in (house, other)}
    await store.store("c-issued", house.make(client), version=kept.version)
    assert (await issuer.issue(client)).certificate.serial != first.certificate.serial
    kept = await store.store("p-issued", house.make(client), version=(await load(store, "p-issued")))
    with pytest.raises(KonvergeError, match=r"Secret kong/p-issued: tls.crt is good for clientAuth"):
        await issuer.offer(ASKED)


async def load(store: SecretStore, name: str) -> str:
    held = await store.load(name)
    assert held is not None
    return held.version
