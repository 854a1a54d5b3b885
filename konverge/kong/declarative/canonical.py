"""The one serialisation of a configuration, and the hash that Kong will report for it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson


def serialise(document: Mapping[str, Any]) -> bytes:
    """Return the canonical bytes: compact JSON in UTF-8 with sorted keys.

    They are sent as ``application/yaml``: only then does Kong hash exactly these bytes.
    """
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def digest(content: bytes) -> str:
    """Return Kong's ``configuration_hash`` of posted bytes: their md5 in hexadecimal."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
