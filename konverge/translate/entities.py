"""Finished entities: the entity, its canonical bytes, and where it belongs in the document.

Canonical bytes are compact JSON with sorted keys in UTF-8. They are made once per entity and joined for the
document, so that a change of one object costs one entity and not the document.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from konverge.translate.drafts import Entity

SORTED = orjson.OPT_SORT_KEYS


class Entry:
    """One entity of one list of the document; sorted by ``key``, then by ``tie``."""

    __slots__ = ("content", "data", "key")

    def __init__(self, key: tuple[Any, ...], data: Entity) -> None:
        self.key = key
        self.data = data
        self.content = orjson.dumps(data, option=SORTED)

    def __lt__(self, other: Entry) -> bool:
        return self.key < other.key

    def __repr__(self) -> str:
        return f"Entry({self.key[:1]!r})"


def drop_empty(entity: Entity) -> Entity:
    """Return the entity without the fields that are null, an empty list or an empty object."""
    return {name: value for name, value in entity.items() if value is not None and value != [] and value != {}}


def sort_plugins(plugins: Iterable[Entity]) -> list[Entity]:
    """Return nested plugins by name, descending; equal names keep their order."""
    return sorted(plugins, key=lambda plugin: plugin["name"], reverse=True)
