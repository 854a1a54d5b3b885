"""Plugin configuration filled with the defaults of the gateway's schema, as Kong itself would store it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from konverge.translate.drafts import Entity
from konverge.translate.settings import Schema

DEFAULT_PROTOCOLS = ["http", "https"]
MAX_DEPTH = 50
"""Levels of records that are followed; Kong's deepest schema has fewer than 10."""


def list_fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (name, attributes) of a schema or record; what is not of that form is skipped."""
    fields = schema.get("fields")
    for item in fields if isinstance(fields, list) else ():
        if isinstance(item, Mapping):
            for name, attributes in item.items():
                if isinstance(attributes, Mapping):
                    yield name, attributes


def fill_plugin(entity: Entity, schema: Schema) -> None:
    """Fill a plugin in place; nothing happens where the schema describes no configuration."""
    fields = dict(list_fields(schema))
    config = fields.get("config")
    if config is None:
        return
    entity["config"] = fill_record(entity.get("config") or {}, config)
    if not entity.get("protocols"):
        default = (fields.get("protocols") or {}).get("default")
        entity["protocols"] = list(default) if default else list(DEFAULT_PROTOCOLS)
    entity.setdefault("enabled", True)
    entity.pop("run_on", None)


def fill_record(given: Any, record: Mapping[str, Any], depth: int = 0) -> Any:
    """Return a record with its defaults; what is no record is returned as it is."""
    if not isinstance(given, Mapping) or depth > MAX_DEPTH:
        return given
    filled = dict(given)
    enclosing = record.get("default")
    shorthands = _replaced_by_given(record, given)
    for name, attributes in list_fields(record):
        if attributes.get("auto") or name in shorthands:
            continue
        filled[name] = _fill_field(name, given, attributes, enclosing, depth)
    return filled


def _replaced_by_given(record: Mapping[str, Any], given: Mapping[str, Any]) -> set[str]:
    """Return the fields that a given deprecated shorthand stands for."""
    replaced: set[str] = set()
    shorthands = record.get("shorthand_fields")
    for item in shorthands if isinstance(shorthands, list) else ():
        if not isinstance(item, Mapping):
            continue
        for name, attributes in item.items():
            if given.get(name) is None or not isinstance(attributes, Mapping):
                continue
            deprecation = attributes.get("deprecation")
            paths = deprecation.get("replaced_with") if isinstance(deprecation, Mapping) else None
            for replacement in paths if isinstance(paths, list) else ():
                path = replacement.get("path") if isinstance(replacement, Mapping) else None
                if isinstance(path, list) and path and isinstance(path[0], str):
                    replaced.add(path[0])
    return replaced


def _fill_field(
    name: str, given: Mapping[str, Any], attributes: Mapping[str, Any], enclosing: Any, depth: int
) -> Any:
    kind = attributes.get("type")
    value = given.get(name)
    if value is None and name not in given:
        if isinstance(enclosing, Mapping) and enclosing.get(name) is not None:
            value = enclosing[name]
        else:
            value = attributes.get("default")
    if kind == "record":
        if value is None and attributes.get("required"):
            value = {}
        return fill_record(value, attributes, depth + 1)
    elements = attributes.get("elements")
    if not (isinstance(elements, Mapping) and elements.get("type") == "record"):
        return value
    if kind in ("array", "set") and isinstance(value, list):
        return [fill_record(item, elements, depth + 1) for item in value]
    return value
