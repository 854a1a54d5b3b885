"""SealedIdentity: a set of identity files at rest, encrypted under a key that the API server never sees."""

from __future__ import annotations

from pydantic import Field

from konverge.model.base import Value

SEAL_FORMAT = "aes-256-gcm/1"
"""Each file under AES-256-GCM with one fresh data key per write; the data key wrapped beside them."""


class SealedSpec(Value):
    """What a SealedIdentity stores; nothing in it opens without the key encryption key."""

    fleet: str = Field(description="The ProxyFleet that the identity belongs to.")
    format: str = Field(default=SEAL_FORMAT, description="How the files are encrypted.")
    key_id: str = Field(description="The key encryption key that wraps the data key.")
    wrapped_key: str = Field(description="The data key, encrypted.")
    files: dict[str, str] = Field(description="File name to nonce and ciphertext, base64.")
