"""Ids for entities that come without one: version-5 UUIDs that are the same on every node and every time.

The namespace of Kong is ``fd02801f-0957-4a15-a55a-c8d9606f30b5``; that of an entity is the UUID of its name in it.
The key is the name of the entity (its endpoint key) or, where the schema has a cache key, that:
``plugins:key-auth::<id of the service>::``. An entity whose key is filled in by Kong itself (key-auth's ``key``) gets
a random id. Names give exactly Kong's ids; for cache keys the ids are as stable as Kong's, but other ones.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from uuid import UUID, uuid4, uuid5

from konverge.lab.kong.schema.fields import EntitySchema

NAMESPACE = UUID("fd02801f-0957-4a15-a55a-c8d9606f30b5")


@lru_cache(maxsize=256)
def _namespace(entity: str) -> UUID:
    return uuid5(NAMESPACE, entity)


def _cache_key(schema: EntitySchema, item: dict[str, Any], parent_field: str, parent_id: str) -> str | None:
    parts = [schema.name, ":"]
    for name in schema.cache_key:
        field, value = schema.fields[name], item.get(name)
        if field.auto:
            return None
        if isinstance(value, str):
            parts.append(value)
        elif isinstance(value, dict) and isinstance(value.get("id"), str):
            parts.append(value["id"])
        elif value is None:
            if name == parent_field:
                parts.append(parent_id)
            elif field.required:
                return None
        parts.append(":")
    return "".join(parts)


def identify(schema: EntitySchema, item: dict[str, Any], parent_field: str = "", parent_id: str = "") -> str:
    """Return the id of an entity."""
    given = item.get("id")
    if isinstance(given, str):
        return given
    key: str | None = None
    if schema.cache_key:
        key = _cache_key(schema, item, parent_field, parent_id)
    elif schema.endpoint_key and isinstance(item.get(schema.endpoint_key), str):
        key = item[schema.endpoint_key]
    return str(uuid4()) if key is None else str(uuid5(_namespace(schema.name), key))
