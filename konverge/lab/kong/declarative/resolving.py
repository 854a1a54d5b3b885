"""Phases two and three: uniqueness and references. They run over the document in place and leave ids in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from konverge.lab.kong.declarative.failures import Errors
from konverge.lab.kong.declarative.identifying import identify
from konverge.lab.kong.schema.fields import EntitySchema
from konverge.lab.kong.schema.registry import Registry


@dataclass(slots=True)
class Reference:
    """A reference that has to be found: which entity, in which field, to what."""

    kind: str
    field: str
    value: Any
    target: str
    at: Any


@dataclass(slots=True)
class Index:
    """The entities of a document by id and by endpoint key, and the references between them."""

    by_id: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    by_key: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    references: list[Reference] = field(default_factory=list)

    def find(self, kind: str, value: Any) -> dict[str, Any] | None:
        """Return the entity that a reference means: {"id": ...}, an id or a name."""
        if isinstance(value, dict):
            value = value.get("id")
        return self.by_id.get(kind, {}).get(value) or self.by_key.get(kind, {}).get(value)


def violation(kind: str, key: str, value: str) -> str:
    """Return Kong's words for a duplicate."""
    return f"uniqueness violation: '{kind}' entity with {key} set to '{value}' already declared"


def index_document(document: dict[str, Any], registry: Registry) -> tuple[Index, Errors]:
    """Give every entity its id and collect them. Returns the index and the violations of uniqueness."""
    index = Index()
    errors: Errors = {}
    _index_sections(document, registry, index, errors, errors, None, None)
    return index, errors


def _index_sections(
    owner: dict[str, Any],
    registry: Registry,
    index: Index,
    errors: Errors,
    here: Errors,
    parent: EntitySchema | None,
    parent_id: str | None,
) -> None:
    """Visit the sections of a document or of an entity. ``errors`` is the root, ``here`` the node of the owner."""
    names = registry.entities if parent is None else registry.children[parent.name]
    for name in names:
        items = owner.get(name)
        if not isinstance(items, list) or (parent is not None and name in parent.fields):
            continue
        schema = registry.entities[name]
        parent_field = registry.children[parent.name][name] if parent is not None else ""
        for position, item in enumerate(items):
            item["id"] = item_id = identify(schema, item, parent_field, parent_id or "")
            if parent_field and item.get(parent_field) is None:
                item[parent_field] = {"id": parent_id}
            nested: Errors = {}
            _index_sections(item, registry, index, errors, nested, schema, item_id)
            if nested:
                here.setdefault(name, {}).setdefault(position, {}).update(nested)
            _index_entity(schema, item, position, index, errors, here)


def _index_entity(
    schema: EntitySchema, item: dict[str, Any], position: int, index: Index, errors: Errors, here: Errors
) -> None:
    kind, item_id = schema.name, item["id"]
    key_field = schema.fields.get(schema.endpoint_key)
    key = item.get(schema.endpoint_key) if key_field is not None and key_field.unique else None
    if key is not None:
        known = index.by_key.setdefault(kind, {})
        if key in known:
            errors.setdefault(kind, {})[position] = violation(kind, schema.endpoint_key, key)
            return
        known[key] = item
    known_ids = index.by_id.setdefault(kind, {})
    if item_id in known_ids:
        here.setdefault(kind, {})[position] = violation(kind, "primary key", item_id)
        return
    known_ids[item_id] = item
    for name, field_ in schema.fields.items():
        if field_.kind == "foreign" and item.get(name) is not None:
            index.references.append(Reference(kind, name, item[name], field_.reference, key or item_id))


def check_references(index: Index) -> Errors:
    """Return the references that lead nowhere, keyed by name or id, not by position."""
    errors: Errors = {}
    for reference in index.references:
        if index.find(reference.target, reference.value) is not None:
            continue
        value = reference.value
        shown = value if isinstance(value, str) else orjson.dumps(value).decode()
        message = f"invalid reference '{reference.field}: {shown}' (no such entry in '{reference.target}')"
        found = errors.setdefault(reference.kind, {}).setdefault(reference.at, {})
        found[len(found)] = message
    return errors


def check_unique_fields(index: Index, registry: Registry) -> Errors:
    """Return duplicates in the unique fields other than the endpoint key, keyed by name or id."""
    errors: Errors = {}
    for kind, entities in index.by_id.items():
        schema = registry.entities[kind]
        names = [name for name, field_ in schema.fields.items() if field_.unique and name != schema.endpoint_key]
        for name in names:
            seen: set[Any] = set()
            for item_id, item in entities.items():
                value = item.get(name)
                if value is not None and value in seen:
                    at = item.get(schema.endpoint_key) or item_id
                    errors.setdefault(kind, {}).setdefault(at, {})[name] = violation(kind, name, value)
                seen.add(value)
    return errors
