"""Looks for private keys where none may be: files, process lists, environments, objects of the API.

What is looked for is the private number of a key in every form in which text or bytes carry it: raw, hex, base64
as inside its PEM, and base64 of that as inside a Secret. So no form of a public key or certificate matches.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator, Sequence
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

SHORTEST = 16
"""Bytes of a form below which a match could be chance."""
LARGEST_FILE = 256 * 1024 * 1024


@dataclass(frozen=True)
class Needle:
    """One private key: a name for messages that is not secret, and its forms."""

    name: str
    forms: frozenset[bytes] = field(repr=False)

    @classmethod
    def of(cls, name: str, key: PrivateKey) -> Needle:
        number = _private_number(key)
        forms = {number, number.hex().encode(), number.hex().upper().encode(), *_base64_forms(number)}
        pem = b"".join(key.to_pem().splitlines()[1:-1])
        for form in _base64_forms(number):
            if (start := pem.find(form)) >= 0:
                forms |= set(_lines_of(start, form))
        for form in list(forms):
            forms |= set(_base64_forms(form))
        return cls(name, frozenset(form for form in forms if len(form) >= SHORTEST))

    @classmethod
    def word(cls, name: str, secret: bytes) -> Needle:
        """Any other secret: a token, a key encryption key as it is written."""
        return cls(name, frozenset({secret, *_base64_forms(secret)}))

    def within(self, content: bytes) -> bool:
        return any(form in content for form in self.forms)


def find_in_files(needles: Sequence[Needle], roots: Iterable[Path]) -> list[str]:
    """Return "file: key" for each file below the roots, or root that is a file, that holds a key."""
    found = []
    for path in _walk(roots):
        try:
            content = path.read_bytes() if path.stat().st_size <= LARGEST_FILE else b""
        except OSError:
            continue  # gone meanwhile
        found += [f"{path}: {needle.name}" for needle in needles if needle.within(content)]
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
            found += [f"process {process.name} {part}: {needle.name}" for needle in needles if needle.within(content)]
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
            found += [f"{where}: {needle.name}" for needle in needles if needle.within(content)]
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


def _walk(roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        if root.is_file():
            yield root
            continue
        for directory, _, names in os.walk(root):
            for name in names:
                path = Path(directory) / name
                if path.is_file() and not path.is_symlink():
                    yield path
