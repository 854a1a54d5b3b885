"""Checks over several fields, with Kong's words (``kong/db/schema/init.lua`` of Kong 3.9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from konverge.lab.kong.schema.fields import EntityCheck

Record = dict[str, Any]


def dig(value: Any, path: str) -> Any:
    """Return the value at a dotted path; None where it is absent."""
    for part in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def is_set(value: Any) -> bool:
    """Tell whether Kong counts a value as non-empty."""
    return value is not None and value != "" and not (isinstance(value, (list, dict)) and not value)


def quote(names: tuple[str, ...]) -> str:
    """Return names the way Kong lists them."""
    return ", ".join(f"'{name}'" for name in names)


def at_least_one_of(*names: str) -> EntityCheck:
    """One of the fields must be set."""

    def run(record: Record) -> tuple[str, dict[str, str]]:
        if any(is_set(dig(record, name)) for name in names):
            return "", {}
        return f"at least one of these fields must be non-empty: {quote(names)}", {}

    return EntityCheck(names, run)


def only_one_of(*names: str) -> EntityCheck:
    """Exactly one of the fields must be set."""

    def run(record: Record) -> tuple[str, dict[str, str]]:
        if sum(is_set(dig(record, name)) for name in names) == 1:
            return "", {}
        return f"exactly one of these fields must be non-empty: {quote(names)}", {}

    return EntityCheck(names, run)


def mutually_required(*names: str) -> EntityCheck:
    """All of the fields or none."""

    def run(record: Record) -> tuple[str, dict[str, str]]:
        missing = [name for name in names if not is_set(dig(record, name))]
        if not missing or len(missing) == len(names):
            return "", {}
        return f"all or none of these fields must be set: {quote(names)}", {}

    return EntityCheck(names, run)


def distinct(*names: str) -> EntityCheck:
    """The values of the fields must differ."""

    def run(record: Record) -> tuple[str, dict[str, str]]:
        values = [dig(record, name) for name in names if is_set(dig(record, name))]
        if len({repr(value) for value in values}) == len(values):
            return "", {}
        return f"values of these fields must be distinct: {quote(names)}", {}

    return EntityCheck(names, run)


def conditional(
    if_field: str,
    if_match: Callable[[Any], bool],
    then_field: str,
    then_match: Callable[[Any], str | None],
    message: str = "",
) -> EntityCheck:
    """Where ``if_field`` matches, ``then_field`` must too; the error goes to both, as Kong reports it."""

    def run(record: Record) -> tuple[str, dict[str, str]]:
        if not if_match(dig(record, if_field)):
            return "", {}
        problem = then_match(dig(record, then_field))
        if problem is None:
            return "", {}
        if message:
            return "", {then_field: message}
        return f"failed conditional validation given value of field '{if_field}'", {then_field: problem}

    return EntityCheck((if_field, then_field), run)


def must_be_null(value: Any) -> str | None:
    """The value has to be absent."""
    return None if value is None else "value must be null"


def must_be_given(value: Any) -> str | None:
    """The value has to be present."""
    return "required field missing" if value is None else None


def among(*values: Any) -> Callable[[Any], bool]:
    """Return a predicate: the value is one of these."""
    return lambda value: value in values


def custom(fields: tuple[str, ...], run: Callable[[Record], str | None]) -> EntityCheck:
    """A check with code of its own; its message goes to @entity."""
    return EntityCheck(fields, lambda record: (run(record) or "", {}))
