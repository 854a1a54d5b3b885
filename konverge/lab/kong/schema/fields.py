"""What a schema is made of: fields, and checks over several fields.

A field is a frozen description; nothing here is per instance, so a hundred stand-ins share one copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Value = Any
"""A JSON value; None is an explicit null, an absent key is a field that was not given."""

Check = Callable[[dict[str, Value]], str | None]
"""Looks at a value and returns what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field. ``kind`` is string, integer, number, boolean, array, set, map, record, foreign, json or any."""

    kind: str
    required: bool = False
    default: Value = None
    has_default: bool = False
    auto: str = ""
    """"uuid", "now" or "random": what Kong fills in by itself."""
    unique: bool = False
    one_of: tuple[Value, ...] = ()
    between: tuple[float, float] | None = None
    gt: float | None = None
    len_min: int | None = None
    len_max: int | None = None
    starts_with: str = ""
    validate: Callable[[Value], str | None] | None = None
    elements: Field | None = None
    keys: Field | None = None
    values: Field | None = None
    fields: Mapping[str, Field] = field(default_factory=dict)
    checks: Sequence[EntityCheck] = ()
    reference: str = ""
    secret: bool = False

    def but(self, **changes: Any) -> Field:
        """Return a copy with changes; ``default`` counts as given."""
        if "default" in changes:
            changes["has_default"] = True
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class EntityCheck:
    """A check over several fields of a record.

    ``run`` gets the record and returns (message for @entity or "", errors by field). It is skipped where one of
    ``fields`` is wrong already.
    """

    fields: tuple[str, ...]
    run: Callable[[dict[str, Value]], tuple[str, dict[str, str]]]


@dataclass(frozen=True, slots=True)
class EntitySchema:
    """An entity as Kong's ``kong/db/schema/entities`` describes it."""

    name: str
    fields: Mapping[str, Field]
    endpoint_key: str = ""
    cache_key: tuple[str, ...] = ()
    primary_key: str = "id"
    checks: Sequence[EntityCheck] = ()
    admin_name: str = ""
    """Name in Admin API paths, where it differs."""
    nested_name: str = ""
    """Name in Admin API paths under a parent, where it differs."""
    shorthands: Mapping[str, Callable[[Value], tuple[dict[str, Value], str | None]]] = field(default_factory=dict)
    milliseconds: bool = False
    """Timestamps carry milliseconds."""

    @property
    def path(self) -> str:
        """Return the name in Admin API paths."""
        return self.admin_name or self.name


def _make(kind: str, options: dict[str, Any]) -> Field:
    if "default" in options:
        options["has_default"] = True
    return Field(kind, **options)


def string(**options: Any) -> Field:
    """A string; like Kong's, it is at least one character long unless ``len_min=0``."""
    return _make("string", {"len_min": 1} | options)


def integer(**options: Any) -> Field:
    """An integer."""
    return _make("integer", options)


def number(**options: Any) -> Field:
    """A number."""
    return _make("number", options)


def boolean(**options: Any) -> Field:
    """A boolean."""
    return _make("boolean", options)


def array(elements: Field, **options: Any) -> Field:
    """A list."""
    return _make("array", {"elements": elements} | options)


def unordered(elements: Field, **options: Any) -> Field:
    """A list without duplicates (Kong's set)."""
    return _make("set", {"elements": elements} | options)


def mapping(keys: Field, values: Field, **options: Any) -> Field:
    """An object with free keys."""
    return _make("map", {"keys": keys, "values": values} | options)


def record(fields: Mapping[str, Field], **options: Any) -> Field:
    """An object with known keys; Kong fills it in wherever it is required."""
    return _make("record", {"fields": fields} | options)


def foreign(reference: str, **options: Any) -> Field:
    """A reference to an entity."""
    return _make("foreign", {"reference": reference} | options)


def anything(**options: Any) -> Field:
    """A value of any type."""
    return _make("any", options)
