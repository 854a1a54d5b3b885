"""The scanner finds a key that was left behind, in whatever form and place: that it finds nothing means something."""

from __future__ import annotations

import asyncio
import base64
import bz2
import gzip
import json
import lzma
import pickle
import sqlite3
import sys
import zlib
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from konverge.pki.authority import Authority, LeafRequest
from konverge.pki.keys import KeyType, PrivateKey
from tests.e2e.sampling import Sampler
from tests.e2e.scanning import (
    Needle,
    find_in_content,
    find_in_database,
    find_in_files,
    find_in_processes,
)

KINDS = list(KeyType)


def to_der(key: PrivateKey) -> bytes:
    return key.signer.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def to_jwk(key: PrivateKey) -> bytes:
    """A JSON Web Key: base64url of the private number (RFC 7518, 6.2.2)."""
    signer = key.signer
    if isinstance(signer, ec.EllipticCurvePrivateKey):
        number = signer.private_numbers().private_value.to_bytes(32, "big")
        return json.dumps({"kty": "EC", "d": base64.urlsafe_b64encode(number).decode().rstrip("=")}).encode()
    return base64.urlsafe_b64encode(to_der(key))


def to_line(key: PrivateKey) -> bytes:
    """A line of the PEM text that holds some of the private number; RSA's modulus comes before it."""
    lines = key.to_pem().splitlines()
    return lines[len(lines) // 2] if len(lines) > 6 else lines[1]


FORMS: dict[str, Callable[[PrivateKey], bytes]] = {
    "PEM": lambda key: key.to_pem(),
    "one line of the PEM": to_line,
    "PEM in JSON": lambda key: json.dumps({"tls.key": key.to_pem().decode()}).encode(),
    "DER": to_der,
    "DER in hexadecimal": lambda key: to_der(key).hex().encode(),
    "DER in base64": lambda key: base64.b64encode(to_der(key)),
    "base64 at any place": lambda key: base64.b64encode(b"x" + to_der(key)),
    "a Secret's data": lambda key: json.dumps({"data": {"k": base64.b64encode(key.to_pem()).decode()}}).encode(),
    "a JSON Web Key": to_jwk,
    "the traceback of a call": lambda key: f"ValueError: {key.to_pem()!r} is no certificate".encode(),
    "pickled": lambda key: base64.b64encode(pickle.dumps({"key": key.to_pem()})),
    "gzip": lambda key: b"head" + gzip.compress(key.to_pem()) + b"tail",
    "gzip in base64": lambda key: b'{"data":"' + base64.b64encode(gzip.compress(key.to_pem())) + b'"}',
    "zlib in base64 with line ends": lambda key: base64.encodebytes(zlib.compress(key.to_pem())),
    "bzip2": lambda key: bz2.compress(to_der(key)),
    "xz in base64": lambda key: base64.b64encode(lzma.compress(key.to_pem())),
    "folded twice": lambda key: gzip.compress(base64.b64encode(zlib.compress(base64.b64encode(to_der(key))))),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_found_in_every_form(form: str, kind: KeyType) -> None:
    key, other = PrivateKey.generate(kind), PrivateKey.generate(kind)
    content = FORMS[form](key)
    assert find_in_content([Needle.of("other", other), Needle.of("key", key)], content) == ["key"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_public_is_no_finding(kind: KeyType) -> None:
    now = datetime.now(UTC)
    authority = Authority.create("shop", now, key_type=kind)
    leaf = authority.issue(LeafRequest("x", ("clientAuth",)), now)
    needles = [Needle.of("authority", authority.identity.key), Needle.of("leaf", leaf.key)]
    public = leaf.chain_pem + authority.identity.chain_pem
    for content in (public, base64.b64encode(public), gzip.compress(public)):
        assert find_in_content(needles, content) == []


def test_a_key_is_found_in_files_and_databases(tmp_path: Path) -> None:
    key = PrivateKey.generate("ecdsa-p256")
    needles = [Needle.of("key", key)]
    (tmp_path / "empty").write_bytes(b"")
    path = tmp_path / "prefect.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE artifact (id INTEGER, data JSON, blob BLOB)")
        # Long enough that the value is spread over pages of the file, with the key across their edge.
        for number in range(64):
            text = json.dumps({"table": "x" * (3900 + number * 8) + key.to_pem().decode()})
            database.execute("INSERT INTO artifact VALUES (?, ?, NULL)", (number, text))
        database.execute("INSERT INTO artifact VALUES (64, 'clean', ?)", (gzip.compress(key.to_pem()),))
        database.execute("INSERT INTO artifact VALUES (65, 'clean', NULL)")
        database.commit()
        found = find_in_database(needles, path)
        assert found == [f"artifact.data {number}: key" for number in range(64)] + ["artifact.blob 64: key"]
    assert find_in_files(needles, [tmp_path]) == [f"{path}: key"]
    assert find_in_database([Needle.of("other", PrivateKey.generate("ecdsa-p256"))], path) == []


async def test_a_key_is_found_in_a_process_that_has_ended_and_a_file_that_is_gone(tmp_path: Path) -> None:
    key = PrivateKey.generate("ecdsa-p256")
    needle, word = Needle.of("key", key), to_line(key).decode()
    async with Sampler([tmp_path]) as sampler:
        for given, variables in ((["x", word], {}), (["x"], {"SECRET": word})):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", "input()", *given),
                stdin=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=variables,
            )
            part = "environ" if variables else "cmdline"
            await sampler.until_seen(f"process {process.pid} {part}")
            assert f"process {process.pid} {part}: key" in find_in_processes([needle])
            await sampler.until_seen(f"process {process.pid} {part}", word.encode())
            process.kill()
            await process.wait()
        path = tmp_path / "deep" / "short-lived"
        path.parent.mkdir()
        path.write_text(word)
        await sampler.until_seen(str(path), word.encode())
        path.unlink()
    found = sampler.find([needle])
    assert {line.split()[0] for line in found} == {"process", f"{path}:"}
    assert {line.split()[2] for line in found if line.startswith("process")} == {"cmdline:", "environ:"}
    assert sampler.find([Needle.of("other", PrivateKey.generate("ecdsa-p256"))]) == []
