"""A bundle that nginx would load only in part is refused before anybody loads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from konverge.errors import Conflict, Invalid, NotFound
from konverge.pki.authority import Authority, request_controller, request_proxies
from konverge.pki.bundle import build_bundle, read_bundle
from konverge.pki.files import CONTROLLER_BUNDLE_FILE, assemble_files, read_files
from konverge.pki.inspecting import to_pem
from konverge.pki.keystore import SecretStore


def test_a_good_bundle_survives_and_is_written_plainly(now: datetime) -> None:
    old, new = Authority.create("edge", now), Authority.create("edge", now)
    bundle = read_bundle(b"\n\n" + old.pem + b"\r\n" + new.pem, now)
    assert bundle.pem == old.pem + new.pem
    assert [a.subject for a in bundle.authorities] == [old.certificate.subject, new.certificate.subject]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda pem: b"", "no certificate"),
        (lambda pem: pem + b"# our second authority\n", "at line"),
        (lambda pem: b"subject=CN\n" + pem, "at line 1"),
        (lambda pem: pem + pem[:200], "no certificate, at line"),
        (lambda pem: pem + b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "certificate 2"),
        (lambda pem: pem + pem, "twice"),
    ],
)
def test_spoilt_bundles_are_refused(now: datetime, spoil: object, words: str) -> None:
    assert callable(spoil)
    with pytest.raises(Invalid, match=words):
        read_bundle(spoil(Authority.create("edge", now).pem), now)


def test_leaves_expired_and_same_named_authorities_are_refused(now: datetime) -> None:
    authority = Authority.create("edge", now, lifetime=timedelta(days=5))
    leaf = authority.issue(request_controller("edge"), now)
    with pytest.raises(Invalid, match="not the certificate of an authority"):
        read_bundle(to_pem(leaf.chain[:1]), now)
    with pytest.raises(Invalid, match="expired"):
        read_bundle(authority.pem, now + timedelta(days=6))
    twin = impersonate(authority.identity.chain[0], now)
    with pytest.raises(Invalid, match="another key"):
        build_bundle((authority.identity.chain[0], twin), now)


def impersonate(original: x509.Certificate, now: datetime) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder().subject_name(original.subject).issuer_name(original.subject)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.sign(key, hashes.SHA256())


def test_overlap_and_removal(now: datetime) -> None:
    old, new = Authority.create("edge", now), Authority.create("edge", now)
    one = read_bundle(old.pem, now)
    both = one.overlap(read_bundle(new.pem, now), now)
    assert both.pem == old.pem + new.pem
    assert both.overlap(one, now) == both
    assert both.without([old.certificate.fingerprint], now).pem == new.pem
    with pytest.raises(Invalid, match="empty"):
        one.without(one.fingerprints, now)


def test_expired_authorities_can_be_dropped(now: datetime) -> None:
    short, long = (Authority.create("edge", now, lifetime=timedelta(days=d)) for d in (1, 9))
    bundle = read_bundle(short.pem + long.pem, now)
    assert bundle.without_expired(now + timedelta(days=2)).pem == long.pem


def test_files_are_checked_as_a_set(now: datetime) -> None:
    authority = Authority.create("edge", now)
    leaf = authority.issue(request_proxies("adm", "kong"), now)
    bundle = read_bundle(authority.pem, now)
    files = assemble_files(leaf, bundle, now)
    assert set(files.data) == {"tls.crt", "tls.key", "client-ca.pem"}
    assert read_files(files.data, now).identity.certificate == leaf.certificate
    assert set(assemble_files(leaf, bundle, now, CONTROLLER_BUNDLE_FILE).data) == {"tls.crt", "tls.key", "ca.crt"}
    other = authority.issue(request_controller("edge"), now)
    for change, reason in (
        ({"tls.key": other.key.to_pem()}, "KeyMismatch"),
        ({"tls.crt": b""}, "IncompleteIdentity"),
        ({"client-ca.pem": leaf.chain_pem}, "BadTrustBundle"),
        ({"client-ca.pem": authority.pem + b"junk"}, "BadCertificate"),
    ):
        with pytest.raises(Invalid) as caught:
            read_files({**files.data, **change}, now)
        assert caught.value.reason == reason
    with pytest.raises(Invalid) as caught:
        read_files(files.data, now + timedelta(days=40))
    assert caught.value.reason == "CertificateExpired"
    assert "PRIVATE" not in repr(files)


@dataclass
class FakeSecrets:
    """The behaviour of the API server that the store relies on: versions, 404 and 409."""

    objects: dict[str, dict[str, object]] = field(default_factory=dict)
    version: int = 0

    async def request(self, method: str, path: str, *, query: object = None, body: object = None) -> bytes:
        import orjson

        self.version += 1
        name = path.partition("/secrets/")[2]
        if method == "POST":
            assert isinstance(body, dict)
            name = str(body["metadata"]["name"])
            if name in self.objects:
                raise Conflict(f"secrets {name} already exists", reason="AlreadyExists")
            self.objects[name] = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        elif name not in self.objects:
            raise NotFound(f"secrets {name} not found")
        elif method == "PUT":
            assert isinstance(body, dict)
            metadata = body["metadata"]
            current = self.objects[name]["metadata"]
            assert isinstance(current, dict)
            if metadata["resourceVersion"] != current["resourceVersion"]:
                raise Conflict(f"secrets {name} changed")
            self.objects[name] = {**body, "metadata": {**metadata, "resourceVersion": str(self.version)}}
        elif method == "DELETE":
            del self.objects[name]
            return b"{}"
        return orjson.dumps(self.objects[name])


async def test_secret_store_round_trip_versions_and_conflicts(now: datetime) -> None:
    authority = Authority.create("edge", now)
    files = assemble_files(authority.issue(request_proxies("adm", "kong"), now), read_bundle(authority.pem, now), now)
    api = FakeSecrets()
    store = SecretStore(api, "kong", labels={"konverge.dev/fleet": "edge"}, owner={"kind": "ProxyFleet", "uid": "1"})
    assert await store.load("id") is None
    first = await store.store("id", files.data, annotations={"a": "1"})
    secret = api.objects["id"]
    assert secret["type"] == "kubernetes.io/tls"
    assert secret["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "konverge"  # type: ignore[index]
    assert secret["metadata"]["ownerReferences"] == [{"kind": "ProxyFleet", "uid": "1"}]  # type: ignore[index]
    loaded = await store.load("id")
    assert loaded is not None
    assert loaded.files == files.data
    assert "PRIVATE" not in repr(loaded)
    with pytest.raises(Conflict):
        await store.store("id", files.data)
    second = await store.store(
        "id", {"tls.crt": b"c", "tls.key": b"k"}, version=first.version, annotations={"b": "2"}
    )
    assert second.files == {"tls.crt": b"c", "tls.key": b"k"}
    assert second.annotations == {"a": "1", "b": "2"}
    with pytest.raises(Conflict):
        await store.store("id", files.data, version=first.version)
    await store.delete("id")
    await store.delete("id")
    with pytest.raises(Conflict):
        await store.store("id", files.data, version=second.version)
