"""Tables: column definitions and one row per object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from konverge.lab.apiserver.clock import parse_time
from konverge.lab.apiserver.kinds import ResourceKind
from konverge.lab.apiserver.store import Object
from konverge.lab.apiserver.tables.columns import AGE, COLUMNS, NAME, Column, show_span
from konverge.lab.apiserver.tables.jsonpath import find_values

CUSTOM = "Custom resource definition column (in JSONPath format): "


def render_table(kind: ResourceKind, objects: Sequence[Object], include: str, now: float) -> Object:
    """Return a meta.k8s.io/v1 Table; ``include`` says what each row carries of its object."""
    columns = _columns_of(kind)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [_define(column) for column in columns],
        "rows": [_row(kind, columns, obj, include, now) for obj in objects],
    }


def _columns_of(kind: ResourceKind) -> Sequence[Column]:
    if kind.custom is not None:
        return [NAME, *(_custom_column(entry) for entry in kind.custom.columns)]
    return COLUMNS.get(kind.kind, (NAME, AGE))


def _custom_column(entry: Object) -> Column:
    path, kind = entry["jsonPath"], entry.get("type", "string")
    wide = bool(entry.get("priority"))

    def read(obj: Object, now: float) -> Any:
        values = find_values(path, obj)
        return _show(kind, values, now)

    return Column(
        entry["name"], read, wide=wide, type=kind, format=entry.get("format", ""), description=CUSTOM + path
    )


def _show(kind: str, values: list[Any], now: float) -> Any:
    """Return a cell of a custom column: nothing for no value, an age for a date."""
    if not values or values[0] is None:
        return None
    value = values[0]
    if kind == "date":
        try:
            return show_span(now - parse_time(str(value)).timestamp())
        except ValueError:
            return "<invalid>"
    if kind in ("integer", "number"):
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, (dict, list)):
        return orjson.dumps(value).decode()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _define(column: Column) -> Object:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description or column.name,
        "priority": int(column.wide),
    }


def _row(kind: ResourceKind, columns: Sequence[Column], obj: Object, include: str, now: float) -> Object:
    row: Object = {"cells": [column.read(obj, now) for column in columns]}
    if include == "Object":
        row["object"] = {**obj, "apiVersion": kind.api_version, "kind": kind.kind}
    elif include == "Metadata":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": obj["metadata"],
        }
    return row
