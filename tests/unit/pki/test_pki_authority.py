"""What our authority issues is what OpenSSL and RFC 5280 accept, and nothing more."""

from __future__ import annotations

import copy
import pickle
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from konverge.errors import Invalid
from konverge.pki.authority import (
    Authority,
    Identity,
    LeafRequest,
    name_server,
    pod_label,
    request_controller,
    request_proxies,
)
from konverge.pki.inspecting import describe, find_renewal, inspect_pem
from konverge.pki.keys import KeyType, PrivateKey


def verify(directory: Path, authority: Authority, leaf: Identity, purpose: str, now: datetime, *more: str) -> str:
    """Return what ``openssl verify`` says: OK, or its error lines."""
    (directory / "ca.pem").write_bytes(authority.pem)
    (directory / "leaf.pem").write_bytes(leaf.chain_pem)
    command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-attime", str(int(now.timestamp()))]
    command += [*more, "-CAfile", str(directory / "ca.pem"), str(directory / "leaf.pem")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return "OK" if done.returncode == 0 and done.stdout.endswith(": OK\n") else done.stderr + done.stdout


@pytest.mark.parametrize("key_type", list(KeyType))
def test_openssl_accepts_each_leaf_for_its_purpose_only(tmp_path: Path, now: datetime, key_type: KeyType) -> None:
    authority = Authority.create("edge", now, key_type=key_type)
    client = authority.issue(request_controller("edge"), now, key_type=key_type)
    server = authority.issue(request_proxies("edge-admin", "kong"), now, key_type=key_type)
    assert verify(tmp_path, authority, client, "sslclient", now) == "OK"
    assert verify(tmp_path, authority, server, "sslserver", now) == "OK"
    assert "purpose" in verify(tmp_path, authority, client, "sslserver", now)
    assert "purpose" in verify(tmp_path, authority, server, "sslclient", now)


def test_openssl_checks_names_times_and_path_length(tmp_path: Path, now: datetime) -> None:
    authority = Authority.create("edge", now)
    leaf = authority.issue(request_proxies("edge-admin", "kong", ip_addresses=["10.0.0.7"]), now)

    def says(*more: str, at: datetime = now) -> str:
        return verify(tmp_path, authority, leaf, "sslserver", at, *more)

    assert says("-verify_hostname", "pod-1.edge-admin.kong.svc") == "OK"
    assert says("-verify_hostname", "edge-admin.kong.svc") == "OK"
    assert says("-verify_ip", "10.0.0.7") == "OK"
    assert "hostname mismatch" in says("-verify_hostname", "a.b.edge-admin.kong.svc")
    assert says(at=now - timedelta(minutes=4)) == "OK"
    assert "not yet valid" in says(at=now - timedelta(minutes=6))
    assert "expired" in says(at=now + timedelta(days=31))
    below = Authority(Identity((leaf.chain[0],), leaf.key)) if leaf.certificate.authority else None
    assert below is None


def test_a_leaf_cannot_act_as_an_authority(now: datetime) -> None:
    leaf = Authority.create("edge", now).issue(request_controller("edge"), now)
    with pytest.raises(Invalid, match="not the certificate of an authority"):
        Authority(leaf)


def test_each_generation_has_its_own_subject_and_serial(now: datetime) -> None:
    made = [Authority.create("f" * 63, now) for _ in range(20)]
    assert len({a.certificate.subject for a in made}) == 20
    assert len({a.certificate.serial for a in made}) == 20
    assert all(
        len(a.identity.chain[0].subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value) <= 64 for a in made
    )
    assert all(len(a.certificate.serial) > 30 for a in made)


def test_authority_certificate_says_what_it_may(now: datetime) -> None:
    certificate = Authority.create("edge", now, lifetime=timedelta(days=90)).identity.chain[0]
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert certificate.not_valid_after_utc == now + timedelta(days=90)
    assert certificate.not_valid_before_utc == now - timedelta(minutes=5)


def test_leaf_never_outlives_its_authority_and_none_comes_from_an_expired_one(now: datetime) -> None:
    authority = Authority.create("edge", now, lifetime=timedelta(days=10))
    late = now + timedelta(days=9)
    assert authority.issue(request_controller("edge"), late).certificate.not_after == now + timedelta(days=10)
    with pytest.raises(Invalid) as caught:
        authority.issue(request_controller("edge"), now + timedelta(days=11))
    assert caught.value.reason == "AuthorityExpired"


@given(seconds=st.integers(min_value=6, max_value=10 * 365 * 86400))
@settings(max_examples=30, deadline=None)
def test_renewal_comes_two_thirds_after_issue(seconds: int) -> None:
    now = datetime.fromisoformat("2026-03-01T12:00:00+00:00")
    lifetime = timedelta(seconds=seconds)
    leaf = Authority.create("edge", now, lifetime=lifetime).certificate
    wanted = now + lifetime * 2 / 3
    assert abs((find_renewal(leaf) - wanted).total_seconds()) <= 1.5


def test_pod_names_that_are_no_single_label_still_fit_the_wildcard(now: datetime) -> None:
    leaf = Authority.create("edge", now).issue(request_proxies("adm", "kong"), now).certificate
    for pod in ("gw-6f7-abc", "gw.with.dots", "g" * 100):
        assert leaf.covers(name_server(pod, "adm", "kong"))
        assert len(pod_label(pod)) <= 63
    assert not leaf.covers("x.other.kong.svc")
    assert not leaf.covers("kong.svc")


def test_requests_carry_all_names() -> None:
    request = request_proxies("adm", "kong", pods=["a"], cluster_domain="cluster.local", ip_addresses=["::1"])
    assert request.dns_names == (
        "*.adm.kong.svc",
        "adm.kong.svc",
        "a.adm.kong.svc",
        "*.adm.kong.svc.cluster.local",
        "adm.kong.svc.cluster.local",
        "a.adm.kong.svc.cluster.local",
    )
    assert request.ip_addresses == ("::1",)


def test_identity_round_trip_and_mismatch(now: datetime) -> None:
    authority = Authority.create("edge", now)
    one, two = (authority.issue(LeafRequest("x", ("clientAuth",)), now) for _ in range(2))
    again = Identity.from_pem(one.chain_pem, one.key.to_pem())
    assert again.certificate == one.certificate
    assert again.key == one.key
    with pytest.raises(Invalid) as caught:
        Identity.from_pem(one.chain_pem, two.key.to_pem())
    assert caught.value.reason == "KeyMismatch"


@pytest.mark.parametrize("kind", list(KeyType))
def test_keys_never_show(kind: KeyType, now: datetime) -> None:
    key = PrivateKey.generate(kind)
    secret = key.to_pem().splitlines()[1].decode()
    leaf = Authority.create("edge", now).issue(request_controller("edge"), now)
    for shown in (repr(key), str(key), f"{key}", repr(leaf), repr([key])):
        assert secret not in shown
        assert "PRIVATE" not in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(key)
    assert PrivateKey.from_pem(key.to_pem()) == key


def test_bad_keys_are_named_without_being_quoted() -> None:
    for pem in (b"", b"hunter2", b"-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(Invalid) as caught:
            PrivateKey.from_pem(pem, "Secret kong/x: tls.key")
        assert "hunter2" not in str(caught.value)
        assert "kong/x" in str(caught.value)
        assert caught.value.__cause__ is None


def test_inspection_matches_openssl(now: datetime) -> None:
    leaf = Authority.create("edge", now).issue(request_proxies("adm", "kong", ip_addresses=["10.0.0.7"]), now)
    said = inspect_pem(leaf.chain_pem)[0]
    command = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-serial", "-subject", "-nameopt", "RFC2253"]
    done = subprocess.run(command, input=leaf.chain_pem, capture_output=True, timeout=20, check=True)
    shown = done.stdout.decode().replace(":", "").lower()
    assert said.fingerprint in shown
    assert f"serial={said.serial.zfill(len(said.serial) + len(said.serial) % 2)}" in shown
    assert said.subject.lower() in done.stdout.decode().lower()
    assert said == describe(leaf.chain[0])
    assert said.ip_addresses == ("10.0.0.7",)
    assert said.purposes == ("serverAuth",)
    assert not said.authority
