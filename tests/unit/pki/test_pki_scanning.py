"""The scanner finds a key in every form, and nothing in what is public."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from konverge.pki.authority import Authority, request_controller
from konverge.pki.keys import KeyType, PrivateKey
from tests.e2e.scanning import Needle, find_in_files, find_in_processes


@pytest.mark.parametrize("kind", list(KeyType))
@pytest.mark.parametrize("number", range(4))
def test_every_form_of_a_key_is_found(tmp_path: Path, kind: KeyType, number: int) -> None:
    key = PrivateKey.generate(kind)
    needle = Needle.of("the key", key)
    pem = key.to_pem()
    der = key.signer.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    forms = {
        "pem": pem,
        "der": der,
        "hex": der.hex().encode(),
        "json": json.dumps({"key": pem.decode()}).encode(),
        "repr": repr(pem).encode(),
        "secret": base64.b64encode(pem),
        "secret with more before it": base64.b64encode(b"x" * number + pem),
        "der in base64": base64.b64encode(b"y" * number + der),
    }
    for name, content in forms.items():
        (tmp_path / name).write_bytes(b"before " + content + b" after")
    found = find_in_files([needle], [tmp_path])
    assert sorted(found) == sorted(f"{tmp_path / name}: the key" for name in forms)
    assert pem.splitlines()[1].decode() not in repr(needle)


@pytest.mark.parametrize("kind", list(KeyType))
def test_what_is_public_and_other_keys_are_not_found(tmp_path: Path, now: datetime, kind: KeyType) -> None:
    authority = Authority.create("edge", now, key_type=kind)
    leaf, other = (authority.issue(request_controller("edge"), now, key_type=kind) for _ in range(2))
    (tmp_path / "public").write_bytes(leaf.chain_pem + base64.b64encode(leaf.chain_pem) + other.key.to_pem())
    assert find_in_files([Needle.of("leaf", leaf.key)], [tmp_path]) == []
    assert find_in_files([Needle.of("leaf", leaf.key)], [tmp_path / "public"]) == []


def test_processes_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    cmdline = Path("/proc/self/cmdline").read_bytes()
    ours = Needle("this test", frozenset({cmdline}))
    assert any("cmdline: this test" in line for line in find_in_processes([ours]))
