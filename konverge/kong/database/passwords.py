"""Passwords that can be put back: Kong stores hashes, the last good configuration has the originals; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from konverge.kong.declarative.flattening import flatten

KIND = "basicauth_credentials"


def read_passwords(document: Mapping[str, Any]) -> dict[str, str]:
    """Return user name -> password of a configuration."""
    found = flatten(document).entities.items()
    return {str(e["username"]): str(e["password"]) for k, e in found if k[0] == KIND and e.get("password")}


def recover_password(credential: Mapping[str, Any], passwords: Mapping[str, str]) -> str | None:
    """Return the password whose hash is stored in a credential; None where it is not among those known."""
    known = passwords.get(str(credential.get("username")))
    consumer = (credential.get("consumer") or {}).get("id", "")
    # Kong's own scheme (kong/plugins/basic-auth/crypto.lua).
    hashed = hashlib.sha1(f"{known}{consumer}".encode(), usedforsecurity=False).hexdigest()
    return known if known is not None and hashed == credential.get("password") else None
