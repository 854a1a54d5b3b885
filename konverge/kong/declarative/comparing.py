"""The differences between two configurations, as sentences that show no secret."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from konverge.kong.declarative.defaults import GENERATED, normalise
from konverge.kong.declarative.flattening import Configuration, Entity, Key, flatten, label
from konverge.kong.declarative.redaction import HIDDEN, show

ONLY_LEFT = "only-left"
ONLY_RIGHT = "only-right"
CHANGED = "changed"

Comparable = Configuration | Mapping[str, Any]
"""A flat configuration, or a document."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. ``left`` and ``right`` are values as they may be shown, "" where the entity is missing."""

    kind: str
    """The kind of entity, e.g. ``routes``."""
    entity: str
    change: str
    """:data:`ONLY_LEFT`, :data:`ONLY_RIGHT` or :data:`CHANGED`."""
    field: str = ""
    left: str = ""
    right: str = ""

    def __str__(self) -> str:
        if self.change == CHANGED:
            return f"{self.entity}: {self.field} is {self.left} here and {self.right} there"
        return f"{self.entity} exists {'here' if self.change == ONLY_LEFT else 'there'} only"

    def to_json(self) -> dict[str, str]:
        """Return the difference as a JSON object."""
        return {name: getattr(self, name) for name in ("kind", "entity", "change", "field", "left", "right")}


def compare(left: Comparable, right: Comparable) -> list[Difference]:
    """Return what differs between two configurations, sorted by kind and name.

    Kinds that one side does not know completely are left out: see :func:`uncompared`.
    """
    one, other = _flat(left), _flat(right)
    schemas = {**one.schemas, **other.schemas}
    differences: list[Difference] = []
    for key in sorted(one.entities.keys() | other.entities.keys()):
        if _skips(key[0], one, other):
            continue
        mine, theirs = one.entities.get(key), other.entities.get(key)
        if mine is None or theirs is None:
            present = mine if mine is not None else theirs
            change = ONLY_LEFT if mine is not None else ONLY_RIGHT
            differences.append(Difference(key[0], label(key, present or {}), change))
            continue
        differences += compare_entity(key, mine, theirs, schemas, (one, other))
    return differences


def uncompared(left: Comparable, right: Comparable) -> list[str]:
    """Return the kinds of which one side has entities and the other one cannot tell."""
    one, other = _flat(left), _flat(right)
    found = {key[0] for key in (*one.entities, *other.entities)}
    return sorted(kind for kind in found if _skips(kind, one, other))


def _flat(side: Comparable) -> Configuration:
    return side if isinstance(side, Configuration) else flatten(side)


def _skips(kind: str, one: Configuration, other: Configuration) -> bool:
    return any(side.kinds is not None and kind not in side.kinds for side in (one, other))


def compare_entity(
    key: Key,
    mine: Entity,
    theirs: Entity,
    schemas: Mapping[str, Mapping[str, Any]],
    sides: tuple[Configuration, Configuration],
) -> Iterator[Difference]:
    """Yield the differences between two forms of one entity; ``sides`` tell the ids that salt passwords."""
    kind = key[0]
    left, right = normalise(kind, mine, schemas), normalise(kind, theirs, schemas)
    _forget_generated(kind, left, right)
    if kind == "basicauth_credentials" and _same_password(key, left, right, sides):
        left.pop("password", None)
        right.pop("password", None)
    name = label(key, mine)
    for path, one, other in _walk((), left, right):
        shown = (show(kind, path, one), show(kind, path, other))
        if shown[0] == shown[1] and shown[0] != HIDDEN:
            shown = (f"{shown[0]} (one value)", f"{shown[1]} (another value)")
        yield Difference(kind, name, CHANGED, ".".join(path), *shown)


def _forget_generated(kind: str, left: Entity, right: Entity) -> None:
    """Drop what Kong made up on one side, and identifiers that were not given on both."""
    for name in ("id", *GENERATED.get(kind, ())):
        if left.get(name) is None or right.get(name) is None:
            left.pop(name, None)
            right.pop(name, None)
    if kind in ("targets", "plugins", "snis", "consumer_group_consumers"):
        left.pop("id", None)
        right.pop("id", None)


def _same_password(key: Key, left: Entity, right: Entity, sides: tuple[Configuration, Configuration]) -> bool:
    """Tell whether one password is the other one as Kong stores it (``kong/plugins/basic-auth/crypto.lua``)."""
    consumer = key[1][0]
    ids = {str((side.entities.get(("consumers", (consumer,))) or {}).get("id") or "") for side in sides} - {""}
    for plain, stored in (
        (left.get("password"), right.get("password")),
        (right.get("password"), left.get("password")),
    ):
        for identifier in ids if plain and stored else ():
            salted = f"{plain}{identifier}".encode()
            if hashlib.sha1(salted, usedforsecurity=False).hexdigest() == stored:
                return True
    return False


def _walk(path: tuple[str, ...], left: Any, right: Any) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for name in sorted(left.keys() | right.keys()):
            yield from _walk((*path, name), left.get(name), right.get(name))
    elif left != right or isinstance(left, bool) != isinstance(right, bool):
        yield path, left, right
