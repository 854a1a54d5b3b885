"""Validating a value against a field, with Kong's words.

Errors have Kong's shape: a string for a scalar, a mapping for a record (with ``@entity`` for checks over several
fields), and for a list a mapping from the position (from 0) to the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from konverge.lab.kong.schema.fields import EntityCheck, Field

Errors = dict[Any, Any]

UNKNOWN = "unknown field"
REQUIRED = "required field missing"
NO_PRIMARY_KEY = "missing primary key"

ARTICLES = {
    "string": "expected a string",
    "integer": "expected an integer",
    "number": "expected a number",
    "boolean": "expected a boolean",
    "array": "expected an array",
    "set": "expected a set",
    "map": "expected a map",
    "record": "expected a record",
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _has_type(kind: str, value: Any) -> bool:
    if kind == "string":
        return isinstance(value, str)
    if kind == "integer":
        return _is_number(value) and float(value).is_integer()
    if kind == "number":
        return _is_number(value)
    if kind == "boolean":
        return isinstance(value, bool)
    if kind in ("array", "set"):
        # An empty Lua table is an array and an object alike.
        return isinstance(value, list) or value == {}
    if kind in ("map", "record"):
        return isinstance(value, dict) or value == []
    return True


def _number_text(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _check_limits(field: Field, value: Any) -> str | None:
    if field.between is not None and not field.between[0] <= value <= field.between[1]:
        low, high = (_number_text(limit) for limit in field.between)
        return f"value should be between {low} and {high}"
    if field.gt is not None and not value > field.gt:
        return f"value must be greater than {_number_text(field.gt)}"
    return None


def _check_length(field: Field, value: Any) -> str | None:
    if field.len_min is not None and len(value) < field.len_min:
        return f"length must be at least {field.len_min}"
    if field.len_max is not None and len(value) > field.len_max:
        return f"length must be at most {field.len_max}"
    return None


def _check_scalar(field: Field, value: Any) -> str | None:
    problem = None
    if isinstance(value, str):
        problem = _check_length(field, value)
        if problem is None and field.starts_with and not value.startswith(field.starts_with):
            problem = f"should start with: {field.starts_with}"
    elif _is_number(value):
        problem = _check_limits(field, value)
    if problem is None and field.one_of and value not in field.one_of:
        problem = "expected one of: " + ", ".join(str(choice) for choice in field.one_of)
    return problem


def validate_value(field: Field, value: Any) -> Any:
    """Return what is wrong with a value: None, a text or a structure."""
    if field.kind == "foreign":
        return field.validate(value) if field.validate is not None else _validate_foreign(value)
    if not _has_type(field.kind, value):
        return ARTICLES[field.kind]
    problem: Any
    if field.kind in ("array", "set"):
        problem = _validate_list(field, value or [])
    elif field.kind == "map":
        problem = _validate_map(field, value or {})
    elif field.kind == "record":
        problem = validate_record(field.fields, value or {}, field.checks) or None
    else:
        problem = _check_scalar(field, value)
    if problem is None and field.validate is not None:
        problem = field.validate(value)
    return problem


def _validate_list(field: Field, items: list[Any]) -> Any:
    problem = _check_length(field, items)
    if problem is not None:
        return problem
    assert field.elements is not None
    errors: Errors = {}
    for position, item in enumerate(items):
        wrong = validate_value(field.elements, item) if item is not None else ARTICLES.get(field.elements.kind)
        if wrong is not None:
            errors[position] = wrong
    return errors or None


def _validate_map(field: Field, items: dict[str, Any]) -> Any:
    problem = _check_length(field, items)
    if problem is not None:
        return problem
    errors: Errors = {}
    for key, item in items.items():
        wrong = validate_value(field.keys, key) if field.keys is not None else None
        if wrong is None and field.values is not None:
            wrong = validate_value(field.values, item)
        if wrong is not None:
            errors[key] = wrong
    return errors or None


def _validate_foreign(value: Any) -> Any:
    if isinstance(value, str):
        return None
    if not isinstance(value, dict):
        return "expected a foreign key" if value != [] else {"id": NO_PRIMARY_KEY}
    return None if "id" in value else {"id": NO_PRIMARY_KEY}


def validate_fields(fields: Mapping[str, Field], value: dict[str, Any]) -> Errors:
    """Return the errors of the fields of a record, without its checks."""
    errors: Errors = {}
    for name, item in value.items():
        field = fields.get(name)
        if field is None:
            errors[name] = UNKNOWN
        elif item is not None:
            wrong = validate_value(field, item)
            if wrong is not None:
                errors[name] = wrong
    for name, field in fields.items():
        if field.required and not field.auto and name not in errors and value.get(name) is None:
            errors[name] = REQUIRED
    return errors


def run_checks(checks: tuple[EntityCheck, ...] | list[EntityCheck], value: dict[str, Any], errors: Errors) -> None:
    """Run the checks over several fields, adding to ``errors``."""
    for check in checks:
        if any(_touched(errors, name) for name in check.fields):
            continue
        message, by_field = check.run(value)
        if message:
            errors.setdefault("@entity", {})
            errors["@entity"][len(errors["@entity"])] = message
        for name, text in by_field.items():
            _place(errors, name.split("."), text)


def _touched(errors: Errors, path: str) -> bool:
    node: Any = errors
    for part in path.split("."):
        if not isinstance(node, dict):
            return True
        if part not in node:
            return False
        node = node[part]
    return True


def _place(errors: Errors, path: list[str], text: str) -> None:
    node = errors
    for part in path[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            return
        node = child
    node[path[-1]] = text


def validate_record(fields: Mapping[str, Field], value: dict[str, Any], checks: Any = ()) -> Errors:
    """Return the errors of a record, its checks included."""
    errors = validate_fields(fields, value)
    if checks:
        run_checks(list(checks), value, errors)
    return errors
