"""Key encryption keys in a file or an environment variable: the first is in force, the others still open.

The text holds one key a line: 32 random bytes in base64; empty lines and lines that begin with ``#`` count for
nothing. A rotation puts a new key in front, rewraps what is sealed, and then drops the old line.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from konverge.errors import Invalid
from konverge.pki.sealing.wrapping import KeyEncryption, Wrapped

KEY_BYTES = 32
NONCE_BYTES = 12
LONGEST_TEXT = 64 * 1024
"""Bytes of a key file that are read; a path that leads elsewhere is not read to its end."""
MISSING_KEY = "reference/errors.md#key-encryption-key-missing"
BAD_KEY = "reference/errors.md#bad-key-encryption-key"


class Keyring(KeyEncryption):
    """Keys that are read anew for each use, so that a changed file or volume counts at once."""

    def __init__(self, read: Callable[[], str], source: str) -> None:
        self._read = read
        self._source = source

    @property
    def source(self) -> str:
        """Where the keys are read from."""
        return self._source

    async def current(self) -> str:
        """Return the id of the first key."""
        return next(iter(await self._keys()))

    async def wrap(self, key: bytes, context: bytes) -> Wrapped:
        """Encrypt a data key under the first key."""
        key_id, own = next(iter((await self._keys()).items()))
        nonce = os.urandom(NONCE_BYTES)
        content = nonce + AESGCM(own).encrypt(nonce, key, _bind(key_id, context))
        return Wrapped(key_id, base64.b64encode(content).decode("ascii"))

    async def unwrap(self, wrapped: Wrapped, context: bytes, what: str) -> bytes:
        """Decrypt a data key; Invalid where its key is not among ours, or it was changed."""
        keys = await self._keys()
        if wrapped.key_id not in keys:
            raise Invalid(
                f"{what} is sealed under key {wrapped.key_id}; {self._source} holds {', '.join(keys)}",
                reason="KeyEncryptionKeyMissing",
                hint=MISSING_KEY,
            )
        try:
            content = base64.b64decode(wrapped.ciphertext, validate=True)
            cipher = AESGCM(keys[wrapped.key_id])
            return cipher.decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], _bind(wrapped.key_id, context))
        except (InvalidTag, binascii.Error, ValueError):
            raise Invalid(
                f"{what}: spec.wrappedKey does not open: it was changed, or it was written for another object",
                reason="SealBroken",
                hint="reference/errors.md#seal-broken",
            ) from None

    async def _keys(self) -> dict[str, bytes]:
        return parse_keys(await asyncio.to_thread(self._read), self._source)


def open_file(path: str) -> Keyring:
    """Return the keys of a file."""

    def read() -> str:
        try:
            with Path(path).open("rb") as file:
                return file.read(LONGEST_TEXT).decode("ascii", "replace")
        except OSError as error:
            raise Invalid(
                f"The key encryption key cannot be read from {path}: {error.strerror or 'it is no file'}",
                reason="KeyEncryptionKeyMissing",
                hint=MISSING_KEY,
            ) from None

    return Keyring(read, f"the file {path}")


def open_environment(name: str) -> Keyring:
    """Return the keys of an environment variable; a space parts them as a new line does."""

    def read() -> str:
        text = os.environ.get(name, "")
        if not text.strip():
            raise Invalid(
                f"The key encryption key is expected in ${name}, which is not set",
                reason="KeyEncryptionKeyMissing",
                hint=MISSING_KEY,
            )
        return "\n".join(text.split())

    return Keyring(read, f"the variable ${name}")


def parse_keys(text: str, source: str) -> dict[str, bytes]:
    """Return id to key in the order of the text; Invalid tells the line that is no key, never what it holds."""
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key = _decode(line.strip())
        if len(key) != KEY_BYTES:
            raise _bad(f"Line {number} of {source} is no key: {KEY_BYTES} random bytes in base64 are")
        keys[identify(key)] = key
    if not keys:
        raise _bad(f"There is no key in {source}")
    return keys


def identify(key: bytes) -> str:
    """Return the id of a key: 64 bits of a hash, from which nothing follows about 256 random bits."""
    return hashlib.sha256(b"konverge key encryption key\0" + key).hexdigest()[:16]


def generate_key() -> str:
    """Return a new key as a line of the text."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode("ascii")


def _bind(key_id: str, context: bytes) -> bytes:
    return key_id.encode("utf-8") + b"\0" + context


def _decode(line: str) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _bad(message: str) -> Invalid:
    return Invalid(message, reason="BadKeyEncryptionKey", hint=BAD_KEY)
