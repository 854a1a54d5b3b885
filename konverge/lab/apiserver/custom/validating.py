"""Validation of custom resources against their schema, in the words of the real server."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

import orjson

from konverge.lab.apiserver.custom.rules import Rule, check_rules, load_rules
from konverge.lab.apiserver.statuses import Cause, required, unsupported, wrong
from konverge.lab.apiserver.store import Object

Schema = dict[str, Any]
Validator = Callable[[Object, Object | None], list[Cause]]

NAMES = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}
UNCHECKED = (
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)
ROOT_SKIPPED = frozenset({"metadata", "apiVersion", "kind"})


def compile_validator(schema: Schema) -> Validator:
    """Return a function from (object, old object) to causes."""
    rules: dict[int, list[Rule]] = {}
    _load(schema, rules)

    def validate(obj: Object, old: Object | None) -> list[Cause]:
        causes: list[Cause] = []
        check = _Check(rules, causes)
        check.value(schema, obj, "", old, root=True)
        if causes:
            causes.sort(key=lambda cause: cause.field)
            return [*causes, Cause("FieldValueInvalid", UNCHECKED, "<nil>")] if rules else causes
        return [
            cause for found, value, before, path in check.due for cause in check_rules(found, value, before, path)
        ]

    return validate


def check_defaults(schema: Schema, field: str) -> list[Cause]:
    """Return what is wrong with the defaults that a schema names: each has to fit its own schema."""
    causes: list[Cause] = []
    if "default" in schema:
        found: list[Cause] = []
        _Check({}, found).value(schema, schema["default"], "", None)
        for cause in found:
            where = cause.field.lstrip(".")
            message = cause.message.replace(f": {cause.field} in body", f": {where} in body")
            causes.append(Cause(cause.reason, message, f"{field}.default.{where}" if where else f"{field}.default"))
    for name, child in (schema.get("properties") or {}).items():
        causes += check_defaults(child, f"{field}.properties[{name}]")
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            causes += check_defaults(schema[word], f"{field}.{word}")
    return causes


def _load(schema: Schema, rules: dict[int, list[Rule]]) -> None:
    if schema.get("x-kubernetes-validations"):
        rules[id(schema)] = load_rules(schema["x-kubernetes-validations"])
    for child in (schema.get("properties") or {}).values():
        _load(child, rules)
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            _load(schema[word], rules)


class _Check:
    """Walks one object; the rules in CEL wait until it is known to be sound."""

    def __init__(self, rules: dict[int, list[Rule]], causes: list[Cause]) -> None:
        self._rules = rules
        self._causes = causes
        self.due: list[tuple[list[Rule], Any, Any, str]] = []
        """Rules to evaluate once the whole object is sound: (rules, value, old value, path)."""

    def value(self, schema: Schema, value: Any, path: str, old: Any, *, root: bool = False) -> None:
        if value is None and schema.get("nullable"):
            return
        fits = self._type(schema, value, path)
        if schema.get("enum") is not None and value not in schema["enum"]:
            self._causes.append(unsupported(path, value, [str(word) for word in schema["enum"]]))
        if not fits:
            return
        if isinstance(value, str):
            self._causes += _check_text(schema, value, path)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            self._causes += _check_number(schema, value, path)
        elif isinstance(value, list):
            self._list(schema, value, path, old)
        elif isinstance(value, dict):
            self._object(schema, value, path, old, root)
        self._logic(schema, value, path)
        if id(schema) in self._rules:
            self.due.append((self._rules[id(schema)], value, old, path))

    def _type(self, schema: Schema, value: Any, path: str) -> bool:
        if schema.get("x-kubernetes-int-or-string"):
            fits, wanted = isinstance(value, (int, str)) and not isinstance(value, bool), "integer,string"
        elif not schema.get("type"):
            return True
        else:
            wanted = schema["type"]
            fits = _fits(wanted, value)
        if not fits:
            got = NAMES.get(type(value), "object")
            text = f'Invalid value: "{got}": {path} in body must be of type {wanted}: "{got}"'
            self._causes.append(Cause("FieldValueTypeInvalid", text, path))
        return fits

    def _object(self, schema: Schema, value: Object, path: str, old: Any, root: bool) -> None:
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        prefix = f"{path}." if path else ""
        self._causes += [required(f"{prefix}{name}") for name in schema.get("required") or () if name not in value]
        for limit, text in (("maxProperties", "at most"), ("minProperties", "at least")):
            if (
                limit in schema
                and (len(value) > schema[limit]) == (limit == "maxProperties")
                and len(value) != schema[limit]
            ):
                self._causes.append(
                    wrong(path, len(value), f"{path} in body should have {text} {schema[limit]} properties")
                )
        for key, item in value.items():
            if root and key in ROOT_SKIPPED:
                continue
            before = old.get(key) if isinstance(old, dict) else None
            if key in properties:
                self.value(properties[key], item, prefix + key, before)
            elif isinstance(extra, dict):
                self.value(extra, item, f"{path}.{key}", before)

    def _list(self, schema: Schema, value: list[Any], path: str, old: Any) -> None:
        size = len(value)
        if "maxItems" in schema and size > schema["maxItems"]:
            text = f"Too many: {size}: must have at most {schema['maxItems']} items"
            self._causes.append(Cause("FieldValueTooMany", text, path))
        if "minItems" in schema and size < schema["minItems"]:
            self._causes.append(wrong(path, size, f"{path} in body should have at least {schema['minItems']} items"))
        earlier = self._keyed(schema, path, value, old)
        items = schema.get("items")
        if isinstance(items, dict):
            for index, item in enumerate(value):
                self.value(items, item, f"{path}[{index}]", earlier.get(_identity(schema, item)))

    def _keyed(self, schema: Schema, path: str, value: list[Any], old: Any) -> dict[str, Any]:
        """Complain about items that occur twice; return old items by identity for transition rules."""
        if schema.get("x-kubernetes-list-type") not in ("map", "set"):
            return {}
        seen: set[str] = set()
        for index, item in enumerate(value):
            identity = _identity(schema, item)
            if identity in seen:
                self._causes.append(Cause("FieldValueDuplicate", f"Duplicate value: {identity}", f"{path}[{index}]"))
            seen.add(identity)
        return {_identity(schema, item): item for item in old} if isinstance(old, list) else {}

    def _logic(self, schema: Schema, value: Any, path: str) -> None:
        for child in schema.get("allOf") or ():
            self.value(child, value, path, None)
        if schema.get("anyOf") and not any(self._holds(child, value) for child in schema["anyOf"]):
            self._causes.append(
                wrong(path, NAMES.get(type(value), ""), f"{path} in body must validate at least one schema (anyOf)")
            )
        if schema.get("oneOf") and sum(self._holds(child, value) for child in schema["oneOf"]) != 1:
            self._causes.append(
                wrong(
                    path, NAMES.get(type(value), ""), f"{path} in body must validate one and only one schema (oneOf)"
                )
            )
        if schema.get("not") and self._holds(schema["not"], value):
            self._causes.append(
                wrong(path, NAMES.get(type(value), ""), f"{path} in body must not validate the schema (not)")
            )

    def _holds(self, schema: Schema, value: Any) -> bool:
        causes: list[Cause] = []
        _Check(self._rules, causes).value(schema, value, "", None)
        return not causes


def _fits(wanted: str, value: Any) -> bool:
    if wanted == "integer":
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )
    if wanted == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, {"object": dict, "array": list, "string": str, "boolean": bool}[wanted])


def _identity(schema: Schema, item: Any) -> str:

    keys = schema.get("x-kubernetes-list-map-keys")
    shown = {key: item.get(key) for key in keys} if keys and isinstance(item, dict) else item
    return orjson.dumps(shown, option=orjson.OPT_SORT_KEYS).decode()


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text.replace("\\z", "\\Z"))


def _check_text(schema: Schema, value: str, path: str) -> list[Cause]:
    causes = []
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        causes.append(Cause("FieldValueTooLong", f"Too long: may not be more than {schema['maxLength']} bytes", path))
    if "minLength" in schema and len(value) < schema["minLength"]:
        causes.append(wrong(path, value, f"{path} in body should be at least {schema['minLength']} chars long"))
    if schema.get("pattern") and not _pattern(schema["pattern"]).search(value):
        causes.append(wrong(path, value, f"{path} in body should match '{schema['pattern']}'"))
    if schema.get("format") in FORMATS and not _has_format(schema["format"], value):
        kind = schema["format"]
        causes.append(wrong(path, value, f'{path} in body must be of type {kind}: "{value}"'))
    return causes


def _check_number(schema: Schema, value: float, path: str) -> list[Cause]:
    causes = []
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and (value < least or (schema.get("exclusiveMinimum") and value == least)):
        word = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        causes.append(wrong(path, value, f"{path} in body should be {word} {least}"))
    if most is not None and (value > most or (schema.get("exclusiveMaximum") and value == most)):
        word = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        causes.append(wrong(path, value, f"{path} in body should be {word} {most}"))
    if schema.get("multipleOf") and value % schema["multipleOf"]:
        causes.append(wrong(path, value, f"{path} in body should be a multiple of {schema['multipleOf']}"))
    return causes


def _has_format(kind: str, value: str) -> bool:
    try:
        FORMATS[kind](value)
    except ValueError:
        return False
    return True


def _parse_duration(text: str) -> None:
    if not re.fullmatch(
        r"[+-]?(0|(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d|w)(\d+(\.\d*)?(ns|us|µs|ms|s|m|h|d|w))*)", text
    ):
        raise ValueError(text)


FORMATS: dict[str, Callable[[str], Any]] = {
    "date-time": lambda text: datetime.fromisoformat(text.replace("Z", "+00:00")),
    "date": lambda text: datetime.strptime(text, "%Y-%m-%d"),
    "ipv4": ip_address,
    "ipv6": ip_address,
    "cidr": lambda text: ip_network(text, strict=False),
    "duration": _parse_duration,
}
