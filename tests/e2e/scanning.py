"""Looks for private keys where none may be: files, databases, process lists, environments, objects of the API.

What is looked for is the private number of a key in every form in which text or bytes carry it: raw, hex, decimal,
base64 as inside its PEM, and base64 of that as inside a Secret; also inside of what is
compressed (tests/e2e/unfolding.py). So no form of a public key or certificate matches.
"""

from __future__ import annotations

import base64
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from konverge.errors import Forbidden, NotFound
from konverge.kube import resources
from konverge.kube.client import KubeClient
from konverge.kube.resources import SECRETS, Resource
from konverge.pki.keys import PrivateKey
from tests.e2e.unfolding import unfold

SHORTEST = 16
"""Bytes of a form below which a match could be chance."""
LARGEST_FILE = 256 * 1024 * 1024
URL_SAFE = bytes.maketrans(b"+/", b"-_")
"""What a base64 text becomes in a JSON Web Key or an address."""


@dataclass(frozen=True)
class Needle:
    """One private key: a name for messages that is not secret, and its forms."""

    name: str
    forms: frozenset[bytes] = field(repr=False)

    @classmethod
    def of(cls, name: str, key: PrivateKey) -> Needle:
        number = _private_number(key)
        decimal = str(int.from_bytes(number, "big")).encode()
        forms = {number, number.hex().encode(), number.hex().upper().encode(), decimal, *_base64_forms(number)}
        pem = b"".join(key.to_pem().splitlines()[1:-1])
        for form in _base64_forms(number):
            if (start := pem.find(form)) >= 0:
                forms |= set(_lines_of(start, form))
        for form in list(forms):
            forms |= set(_base64_forms(form))
        forms |= {form.translate(URL_SAFE) for form in forms if form not in (number, decimal)}
        return cls(name, frozenset(form for form in forms if len(form) >= SHORTEST))

    @classmethod
    def word(cls, name: str, secret: bytes) -> Needle:
        """Any other secret: a token, a key encryption key as it is written."""
        return cls(name, frozenset({secret, *_base64_forms(secret)}))

    def within(self, content: bytes) -> bool:
        return bool(find_in_content([self], content))


def find_in_content(needles: Sequence[Needle], content: bytes) -> list[str]:
    """Return the names of the keys that some bytes hold, as they are or compressed."""
    found: set[str] = set()
    for layer in unfold(content):
        found |= {needle.name for needle in needles if any(form in layer for form in needle.forms)}
    return sorted(found)


def find_in_files(needles: Sequence[Needle], roots: Iterable[Path]) -> list[str]:
    """Return "file: key" for each file below the roots, or root that is a file, that holds a key."""
    found = []
    for path in walk(roots):
        try:
            content = path.read_bytes() if path.stat().st_size <= LARGEST_FILE else b""
        except OSError:
            continue  # gone meanwhile
        found += [f"{path}: {name}" for name in find_in_content(needles, content)]
    return found


def find_in_database(needles: Sequence[Needle], path: Path) -> list[str]:
    """Return "table.column row: key" for each value of a SQLite database that holds a key; it may be in use.

    A page of the file holds but a part of a long value, so the file itself is not enough.
    """
    found = []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            rows = database.execute(f'SELECT * FROM "{table}"')
            columns = [column[0] for column in rows.description]
            for number, row in enumerate(rows):
                for column, value in zip(columns, row, strict=True):
                    content = value if isinstance(value, bytes) else str(value).encode()
                    found += [f"{table}.{column} {number}: {name}" for name in find_in_content(needles, content)]
    return found


def find_in_processes(needles: Sequence[Needle]) -> list[str]:
    """Return "process part: key" for each argument list or environment on this machine that holds a key."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        for part in ("cmdline", "environ"):
            try:
                content = (process / part).read_bytes()
            except OSError:
                continue  # ended, or not ours
            found += [f"process {process.name} {part}: {name}" for name in find_in_content(needles, content)]
    return found


async def find_in_objects(
    needles: Sequence[Needle], kube: KubeClient, allowed: Iterable[tuple[str, str]] = ()
) -> list[str]:
    """Return "kind namespace/name: key" for every object that holds a key; ``allowed`` are (namespace, Secret)."""
    kinds = {kind for kind in vars(resources).values() if isinstance(kind, Resource)}
    permitted, found = set(allowed), []
    for kind in sorted(kinds, key=lambda kind: kind.kind):
        try:
            objects = await kube.list_all(kind)
        except (NotFound, Forbidden):
            continue
        for body in objects:
            place = (body["metadata"].get("namespace", ""), body["metadata"]["name"])
            if kind == SECRETS and place in permitted:
                continue
            content = orjson.dumps(body)
            where = f"{kind.kind} {'/'.join(place)}"
            found += [f"{where}: {name}" for name in find_in_content(needles, content)]
    return found


def _private_number(key: PrivateKey) -> bytes:
    """Return bytes that nobody knows who knows the public key alone, as they stand in the encoded key."""
    signer = key.signer
    if isinstance(signer, ec.EllipticCurvePrivateKey):
        size = (signer.curve.key_size + 7) // 8
        return signer.private_numbers().private_value.to_bytes(size, "big")
    if isinstance(signer, ed25519.Ed25519PrivateKey):
        return signer.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    prime = signer.private_numbers().p
    return prime.to_bytes((prime.bit_length() + 7) // 8, "big")


def _base64_forms(content: bytes) -> list[bytes]:
    """Return what base64 makes of bytes wherever they stand in a text; the ends, which depend on it, left out."""
    forms = []
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + content).rstrip(b"=")
        forms.append(encoded[(shift * 8 + 5) // 6 : len(encoded) - 1])
    return forms


def _lines_of(start: int, form: bytes, width: int = 64) -> Iterator[bytes]:
    """Yield the pieces of a form as the lines of a PEM text cut it."""
    position = start
    while position < start + len(form):
        end = min((position // width + 1) * width, start + len(form))
        piece = form[position - start : end - start]
        if len(piece) >= SHORTEST:
            yield piece
        position = end


def walk(roots: Iterable[Path]) -> Iterator[Path]:
    """Yield the files below the roots, and the roots that are files; neither links nor sockets."""
    for root in roots:
        if root.is_file():
            yield root
            continue
        for directory, _, names in os.walk(root):
            for name in names:
                path = Path(directory) / name
                if path.is_file() and not path.is_symlink():
                    yield path
