"""Which entity of the database is which one of the configuration; pure.

What names an entity for people decides (a route's name, a credential's value), then its id. The id that it has in
the database stays: nothing but CA certificates is referred to by a given id from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from uuid import UUID, uuid5

from konverge.errors import Invalid
from konverge.kong.database.kinds import KINDS, SKIPPED, UNTAGGED
from konverge.kong.database.reading import Stored
from konverge.kong.declarative.flattening import (
    CREDENTIALS,
    REFERENCES,
    Configuration,
    Key,
    flatten,
    free_key,
    natural_key,
    tabulate,
)

Entity = dict[str, Any]

NAMESPACE = UUID("3f0a7f6c-3d7e-5f5e-9a30-6c6f4d1b8e52")
"""Namespace of the ids of entities that come without one; chosen once, never changed."""
GLOBAL_CREDENTIALS = frozenset(CREDENTIALS) - {"acls", "mtls_auth_credentials"}
"""Credentials whose value is unique among all consumers."""

OWNERS = frozenset(REFERENCES.values())
"""Kinds that others refer to."""


@dataclass
class Matching:
    """Both sides as tables, and what belongs together."""

    wanted: Configuration
    current: Configuration
    raw: dict[Key, Entity] = field(default_factory=dict, repr=False)
    """The entities of the database as Kong shows them."""
    pairs: dict[Key, Key] = field(default_factory=dict)
    """Wanted -> current."""
    ids: dict[Key, str] = field(default_factory=dict)
    """Wanted -> the id that it has, or gets."""
    skipped: tuple[str, ...] = ()

    @property
    def left_over(self) -> list[Key]:
        """What the database has and the configuration has not."""
        paired = set(self.pairs.values())
        return [key for key in self.current.entities if key not in paired]

    @cached_property
    def guarded_routes(self) -> frozenset[str]:
        """Names of the wanted routes that have plugins of their own."""
        plugins = (entity for key, entity in self.wanted.entities.items() if key[0] == "plugins")
        return frozenset(str(plugin["route"]) for plugin in plugins if plugin.get("route"))

    def find_id(self, kind: str, reference: str) -> str:
        """Return the id behind a reference of a wanted entity; what is not ours is referred to by id already."""
        return self.ids.get((kind, (reference,)), reference)


def match(document: Mapping[str, Any], stored: Stored, tag: str) -> Matching:
    """Tabulate both sides and pair them. Invalid where the configuration has a kind that no database gets."""
    wanted = flatten({kind: items for kind, items in document.items() if kind not in SKIPPED})
    unknown = sorted({key[0] for key in wanted.entities} - set(KINDS))
    if unknown:
        raise Invalid(
            f"A fleet with a database cannot have {', '.join(unknown)}",
            reason="KindUnsupported",
            hint="howto/db-mode.md#what-is-not-written",
        )
    for key, entity in wanted.entities.items():
        if key[0] not in UNTAGGED:
            entity["tags"] = list(dict.fromkeys([*(entity.get("tags") or ()), tag]))
    current = tabulate(rows := [(kind, e) for kind, entities in stored.entities.items() for e in entities.values()])
    current.schemas = stored.schemas
    raw = dict(zip(current.entities, (entity for _, entity in rows), strict=True))
    matching = Matching(wanted, current, raw, skipped=tuple(sorted(SKIPPED & set(document))))
    _pair(matching, OWNERS)
    _rename_owners(matching)
    _pair(matching, frozenset(KINDS) - OWNERS)
    _assign_ids(matching, tag)
    return matching


def _pair(matching: Matching, kinds: frozenset[str]) -> None:
    current, pairs = matching.current.entities, matching.pairs
    wanted = {key: entity for key, entity in matching.wanted.entities.items() if key[0] in kinds}
    pairs.update({key: key for key in wanted if key in current and not _differ_in_id(key, wanted[key], current[key])})
    for tell in (_tell_id, _tell_value):
        free = {tell(key, current[key]): key for key in matching.left_over}
        for key, entity in wanted.items():
            found = free.pop(tell(key, entity), None) if key not in pairs else None
            if found is not None:
                pairs[key] = found


def _rename_owners(matching: Matching) -> None:
    """Let what is stored refer to its owners by the names that they are to have; that may be part of its own name."""
    words = {(c[0], c[1][0]): w[1][0] for w, c in matching.pairs.items() if w != c}
    if not words:
        return
    renamed = Configuration(schemas=matching.current.schemas)
    raw: dict[Key, Entity] = {}
    for key, entity in matching.current.entities.items():
        for name, kind in REFERENCES.items():
            if name in entity:
                entity[name] = words.get((kind, str(entity[name])), entity[name])
        fresh = key if key[0] in OWNERS else free_key(renamed, (key[0], natural_key(key[0], entity)))
        renamed.entities[fresh], raw[fresh] = entity, matching.raw[key]
    matching.current, matching.raw = renamed, raw


def _differ_in_id(key: Key, wanted: Entity, current: Entity) -> bool:
    return key[0] == "ca_certificates" and bool(wanted.get("id")) and wanted["id"] != current.get("id")


def _tell_id(key: Key, entity: Entity) -> tuple[Any, ...]:
    return (key[0], entity["id"]) if entity.get("id") and key[0] not in UNTAGGED else key


def _tell_value(key: Key, entity: Entity) -> tuple[Any, ...]:
    value = entity.get(CREDENTIALS[key[0]]) if key[0] in GLOBAL_CREDENTIALS else None
    return (key[0], str(value)) if value else key


def _assign_ids(matching: Matching, tag: str) -> None:
    taken = {(key[0], entity.get("id")) for key, entity in matching.raw.items()}
    for key, entity in matching.wanted.entities.items():
        if key in matching.pairs:
            matching.ids[key] = str(matching.raw[matching.pairs[key]].get("id") or "")
        else:
            matching.ids[key] = next(i for i in _propose_ids(key, entity, tag) if (key[0], i) not in taken)
            taken.add((key[0], matching.ids[key]))


def _propose_ids(key: Key, entity: Entity, tag: str) -> Iterable[str]:
    if entity.get("id"):
        yield str(entity["id"])
    count = 0
    while True:
        yield str(uuid5(NAMESPACE, "\n".join((tag, key[0], *key[1], str(count)))))
        count += 1
