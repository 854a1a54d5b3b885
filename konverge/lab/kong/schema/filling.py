"""Filling in what an entity leaves open: defaults, nulls, records (Kong's ``process_auto_fields``)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from konverge.lab.kong.schema.fields import Field

SHARED = (str, int, float, bool, type(None))


def fill(fields: Mapping[str, Field], value: dict[str, Any], *, nulls: bool) -> dict[str, Any]:
    """Return a copy of a record with every default in place.

    With ``nulls`` every other known field is None; otherwise it stays absent, as in Kong's validation, where checks
    tell given from missing.
    """
    filled: dict[str, Any] = {}
    for name, field in fields.items():
        given = value.get(name)
        if given is None and name not in value:
            filled_value = _default(field, nulls)
            if filled_value is not None or nulls:
                filled[name] = filled_value
        elif given is None:
            filled[name] = None
        else:
            filled[name] = _fill_value(field, given, nulls)
    for name, given in value.items():
        if name not in fields:
            filled[name] = given
    return filled


def _default(field: Field, nulls: bool) -> Any:
    if field.has_default:
        if isinstance(field.default, SHARED):
            return field.default
        return _fill_value(field, copy.deepcopy(field.default), nulls)
    if field.kind == "record" and field.required:
        return fill(field.fields, {}, nulls=nulls)
    return None


def _fill_value(field: Field, value: Any, nulls: bool) -> Any:
    kind = field.kind
    if kind == "record" and (isinstance(value, dict) or value == []):
        return fill(field.fields, value or {}, nulls=nulls)
    if kind == "array" and isinstance(value, list):
        return _fill_items(field, value, nulls)
    if kind == "set" and isinstance(value, list):
        return _unique(_fill_items(field, value, nulls))
    if kind == "map" and isinstance(value, dict) and field.values is not None and field.values.kind == "record":
        return {key: _fill_value(field.values, item, nulls) for key, item in value.items()}
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _fill_items(field: Field, items: list[Any], nulls: bool) -> list[Any]:
    element = field.elements
    if element is None or element.kind in ("string", "integer", "number", "boolean"):
        return items
    return [_fill_value(element, item, nulls) for item in items]


def _unique(items: list[Any]) -> list[Any]:
    seen: list[Any] = []
    for item in items:
        if item not in seen:
            seen.append(item)
    return seen
