"""Phase one: the schemas. Every entity of the document is checked, nested ones where they stand."""

from __future__ import annotations

from typing import Any

from konverge.lab.kong.declarative.failures import Crash, Errors
from konverge.lab.kong.schema.fields import EntitySchema, Field, array, boolean, record, string
from konverge.lab.kong.schema.filling import fill
from konverge.lab.kong.schema.registry import Registry
from konverge.lab.kong.schema.validation import UNKNOWN, run_checks, validate_fields, validate_value

VERSIONS = ("1.1", "2.1", "3.0")
ANNOTATIONS = ("_comment", "_ignore")

DOCUMENT: dict[str, Field] = {
    "_format_version": string(required=True, one_of=VERSIONS),
    "_transform": boolean(default=True),
    "_comment": string(),
    "_ignore": array(Field("any")),
    "_info": record({"defaults": Field("any"), "select_tags": array(string())}),
    "_workspace": string(),
    "_plugin_configs": Field("any"),
}
"""What a document has besides entities."""


def validate_document(document: dict[str, Any], registry: Registry) -> Errors:
    """Return the errors of a document. Raises Crash for what a real Kong trips over."""
    errors: Errors = {}
    known = {name: value for name, value in document.items() if name in DOCUMENT}
    errors.update(validate_fields(DOCUMENT, known))
    for name, value in document.items():
        if name in DOCUMENT:
            continue
        schema = registry.entities.get(name)
        if schema is None:
            errors[name] = UNKNOWN
        elif value is not None:
            wrong = _validate_section(schema, value, registry, "")
            if wrong:
                errors[name] = wrong
    return errors


def _validate_section(schema: EntitySchema, items: Any, registry: Registry, parent_field: str) -> Any:
    if items == {}:
        return None
    if not isinstance(items, list):
        return "expected an array"
    errors: Errors = {}
    # An empty Lua table is a list and an object alike.
    items[:] = [{} if item == [] else item for item in items]
    for position, item in enumerate(items):
        if item is None:
            raise Crash(f"null among {schema.name}")
        wrong = validate_entity(schema, item, registry, parent_field)
        if wrong:
            errors[position] = wrong
    return errors


def validate_entity(schema: EntitySchema, item: Any, registry: Registry, parent_field: str = "") -> Any:
    """Return what is wrong with one entity and with what is nested in it."""
    if not isinstance(item, dict):
        return "expected a record"
    children = registry.children[schema.name]
    nested = {name: value for name, value in item.items() if name in children and name not in schema.fields}
    own = {name: value for name, value in item.items() if name not in nested and name not in ANNOTATIONS}
    errors = _expand(schema, own)
    if schema.name == "plugins":
        errors |= _validate_plugin(schema, own, registry)
    else:
        errors |= _validate_own(schema, own, parent_field)
    for name, value in nested.items():
        if value is not None:
            wrong = _validate_section(registry.entities[name], value, registry, children[name])
            if wrong:
                errors[name] = wrong
    return errors


def _expand(schema: EntitySchema, own: dict[str, Any]) -> Errors:
    """Replace shorthands such as ``url``; what is given in full wins."""
    errors: Errors = {}
    for name, expand in schema.shorthands.items():
        if own.get(name) is not None:
            fields, problem = expand(own.pop(name))
            if problem is not None:
                errors[name] = problem
            for key, value in fields.items():
                own.setdefault(key, value)
    return errors


def _validate_own(schema: EntitySchema, own: dict[str, Any], parent_field: str) -> Errors:
    fields = schema.fields
    if schema.name == "routes":
        for item in own.get("protocols") or () if isinstance(own.get("protocols"), list) else ():
            if isinstance(item, str) and item not in (fields["protocols"].elements or Field("any")).one_of:
                # The protocol chooses the subschema; without one nothing else is looked at.
                return {"protocols": f"unknown type: {item}"}
    if parent_field and fields[parent_field].required:
        fields = {**fields, parent_field: fields[parent_field].but(required=False)}
    filled = fill(fields, own, nulls=False)
    errors = validate_fields(fields, filled)
    run_checks(list(schema.checks), filled, errors)
    return errors


def _validate_plugin(schema: EntitySchema, own: dict[str, Any], registry: Registry) -> Errors:
    name = own.get("name")
    if not isinstance(name, str):
        return {"name": "required field missing" if name is None else "expected a string"}
    known = registry.plugins.get(name)
    if known is None:
        return {"name": f"plugin '{name}' not enabled; add it to the 'plugins' configuration property"}
    config = registry.plugin_field(name)
    fields = {**schema.fields, "config": config or Field("record", required=True)}
    filled = fill(fields, own, nulls=False)
    given = filled.pop("config", None)
    errors = validate_fields({key: field for key, field in fields.items() if key != "config"}, filled)
    for reference in known.no:
        if own.get(reference) is not None:
            errors[reference] = "value must be null"
    if config is not None and given is not None:
        wrong = validate_value(config, given)
        if wrong is not None:
            errors["config"] = wrong
    run_checks(list(known.checks), {**filled, "config": given}, errors)
    return errors
