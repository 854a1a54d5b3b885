"""Pruning drops what the schema does not know; defaulting fills what it names a default for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from konverge.lab.apiserver.store import copy_json

Schema = dict[str, Any]

PRESERVE = "x-kubernetes-preserve-unknown-fields"
EMBEDDED = "x-kubernetes-embedded-resource"
ALWAYS = frozenset({"apiVersion", "kind", "metadata"})


def find_unknown(schema: Schema, obj: dict[str, Any]) -> list[str]:
    """Return the paths of fields that pruning drops."""
    return [path for _, _, path in _walk(schema, obj, "", True)]


def prune(schema: Schema, obj: dict[str, Any]) -> None:
    """Drop unknown fields in place."""
    for holder, key, _ in list(_walk(schema, obj, "", True)):
        holder.pop(key, None)


def _walk(schema: Schema, value: Any, path: str, root: bool) -> Iterator[tuple[dict[str, Any], str, str]]:
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for index, item in enumerate(value):
                yield from _walk(items, item, f"{path}[{index}]", False)
        return
    if not isinstance(value, dict):
        return
    properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
    known = ALWAYS if root or schema.get(EMBEDDED) else frozenset()
    for key, item in value.items():
        where = f"{path}.{key}" if path else key
        if key in properties and not (root and key == "metadata"):
            yield from _walk(properties[key], item, where, False)
        elif key in known or extra is True:
            continue
        elif isinstance(extra, dict):
            yield from _walk(extra, item, where, False)
        elif not schema.get(PRESERVE):
            yield value, key, where


def fill_defaults(schema: Schema, value: Any) -> None:
    """Fill defaults in place; a null where the schema allows none counts as left out."""
    if isinstance(value, dict):
        for key, child in (schema.get("properties") or {}).items():
            if "default" in child and (key not in value or (value[key] is None and not child.get("nullable"))):
                value[key] = copy_json(child["default"])
            if value.get(key) is not None:
                fill_defaults(child, value[key])
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            for key, item in value.items():
                if key not in (schema.get("properties") or {}):
                    fill_defaults(extra, item)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            fill_defaults(schema["items"], item)


def drop_nulls(schema: Schema, value: Any) -> None:
    """Drop nulls that the schema does not allow where a default or nothing takes their place."""
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        for key in list(value):
            child = properties.get(key)
            if child is None:
                continue
            if value[key] is None and not child.get("nullable") and "default" in child:
                del value[key]
            else:
                drop_nulls(child, value[key])
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            drop_nulls(schema["items"], item)
