"""The envelope: every file under AES-256-GCM (NIST SP 800-38D) with one data key that is made anew for each write.

What a file is bound to is authenticated with it: namespace, name, file name and the names of all files of the
set. So a ciphertext that is changed, moved to another file or object, taken from an older write, or whose
sibling was removed does not open. A whole object of the same name that was put back as it once was does open:
against that stands the version of the API server alone.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from konverge.errors import Invalid
from konverge.model.identity import SEAL_FORMAT, SealedSpec
from konverge.pki.sealing.wrapping import KeyEncryption, Wrapped

KEY_BYTES = 32
NONCE_BYTES = 12
"""96 bits, the length that GCM takes as it is (SP 800-38D, 5.2.1.1)."""
SEAL_BROKEN = "reference/errors.md#seal-broken"


@dataclass(frozen=True, slots=True)
class Place:
    """The object that an envelope belongs to."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"SealedIdentity {self.namespace}/{self.name}"

    def bind(self, *parts: str) -> bytes:
        """Return what is authenticated beside a ciphertext."""
        return join_parts("konverge.dev/SealedIdentity", self.namespace, self.name, *parts)


def join_parts(*parts: str) -> bytes:
    """Encode words so that different lists of words never have the same encoding."""
    encoded = [part.encode("utf-8") for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


async def seal(files: Mapping[str, bytes], place: Place, fleet: str, keys: KeyEncryption) -> SealedSpec:
    """Encrypt files for one object under the current key encryption key."""
    data_key = AESGCM.generate_key(bit_length=8 * KEY_BYTES)
    cipher, names = AESGCM(data_key), sorted(files)
    sealed = {}
    for name in names:
        nonce = os.urandom(NONCE_BYTES)
        sealed[name] = _encode(nonce + cipher.encrypt(nonce, files[name], place.bind(name, *names)))
    wrapped = await keys.wrap(data_key, place.bind())
    return SealedSpec(fleet=fleet, key_id=wrapped.key_id, wrapped_key=wrapped.ciphertext, files=sealed)


async def unseal(spec: SealedSpec, place: Place, keys: KeyEncryption) -> dict[str, bytes]:
    """Decrypt the files of an object; Invalid names the part that is not what was written there."""
    if spec.format != SEAL_FORMAT:
        raise Invalid(
            f"{place}: spec.format is {spec.format!r}, this version reads {SEAL_FORMAT}",
            reason="UnknownSealFormat",
            hint=SEAL_BROKEN,
        )
    data_key = await keys.unwrap(Wrapped(spec.key_id, spec.wrapped_key), place.bind(), str(place))
    if len(data_key) != KEY_BYTES:
        raise broken(place, "spec.wrappedKey")
    cipher, names = AESGCM(data_key), sorted(spec.files)
    return {name: _open_file(cipher, spec.files[name], place, name, names) for name in names}


async def rewrap(spec: SealedSpec, place: Place, keys: KeyEncryption) -> SealedSpec:
    """Wrap the data key of an object under the current key encryption key; the files stay as they are."""
    fresh = await keys.rewrap(Wrapped(spec.key_id, spec.wrapped_key), place.bind(), str(place))
    return spec.replace(key_id=fresh.key_id, wrapped_key=fresh.ciphertext)


def broken(place: Place, part: str) -> Invalid:
    """Return the failure of a seal that does not open."""
    return Invalid(
        f"{place}: {part} does not open: it was changed, or it was written for another object or file",
        reason="SealBroken",
        hint=SEAL_BROKEN,
    )


def _open_file(cipher: AESGCM, text: str, place: Place, name: str, names: list[str]) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
        return cipher.decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], place.bind(name, *names))
    except (InvalidTag, binascii.Error, ValueError):
        raise broken(place, f"spec.files[{name}]") from None


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
