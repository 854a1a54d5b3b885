"""What the database refuses, in Kong's words (``kong/db/errors.lua``)."""

from __future__ import annotations

from typing import Any

from konverge.lab.kong.admin.answers import Answer, coded
from konverge.lab.kong.declarative.failures import print_lua


class Refused(Exception):
    """A write that violates something; ``answer`` is what the Admin API says."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


def print_key(value: dict[str, Any]) -> str:
    """Print a key the way Kong does: ``{name="x"}``; a null is ``null``."""
    parts = []
    for name in sorted(value):
        item = value[name]
        shown = "null" if item is None else print_key(item) if isinstance(item, dict) else print_lua(item)
        parts.append(f"{name}={shown}")
    return "{" + ",".join(parts) + "}"


def duplicate(fields: dict[str, Any]) -> Refused:
    """Another entity holds a unique value (code 5)."""
    message = f"UNIQUE violation detected on '{print_key(fields)}'"
    return Refused(coded(409, 5, "unique constraint violation", message, fields))


def primary_key(entity_id: str) -> Refused:
    """An entity with this id exists already (code 3)."""
    key = {"id": entity_id}
    message = f"primary key violation on key '{print_key(key)}'"
    return Refused(coded(400, 3, "primary key violation", message, key))


def missing_target(field: str, target_kind: str, key: dict[str, Any]) -> Refused:
    """A reference leads nowhere (code 4)."""
    message = f"the foreign key '{print_key(key)}' does not reference an existing '{target_kind}' entity."
    return Refused(coded(400, 4, "foreign key violation", message, {field: key}))


def still_referenced(kind: str, child_kind: str) -> Refused:
    """Something refers to what is to be deleted (code 4)."""
    message = f"an existing '{child_kind}' entity references this '{kind}' entity"
    return Refused(coded(400, 4, "foreign key violation", message, {"@referenced_by": child_kind}))
