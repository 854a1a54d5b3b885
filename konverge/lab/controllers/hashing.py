"""The pod-template-hash: a short name for a pod template.

Kubernetes hashes its own Go structures (FNV-1a, 32 bits); here the canonical JSON is hashed, so that the
values differ from a real cluster's while their form and use are the same.
"""

from __future__ import annotations

import copy

import orjson

from konverge.kube.resources import Object

LABEL = "pod-template-hash"
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""``rand.SafeEncodeString``: no vowels and no look-alikes."""


def hash_template(template: Object, collisions: int = 0) -> str:
    """Return the hash of a pod template; ``collisions`` is the Deployment's collisionCount."""
    value = 0x811C9DC5
    for byte in orjson.dumps([strip_hash(template), collisions], option=orjson.OPT_SORT_KEYS):
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in str(value))


def strip_hash(template: Object) -> Object:
    """Return a copy of a template without the hash label, and without empty metadata."""
    copied = copy.deepcopy(template)
    metadata = copied.get("metadata") or {}
    labels = metadata.get("labels") or {}
    labels.pop(LABEL, None)
    metadata["labels"] = labels
    copied["metadata"] = {name: value for name, value in metadata.items() if value}
    return copied


def same_template(one: Object, other: Object) -> bool:
    """Tell whether two templates make the same pods."""
    return strip_hash(one) == strip_hash(other)
