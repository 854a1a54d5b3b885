"""``flatten_errors``: errors as a list of entities instead of a tree.

Observed rules: the last entity comes first, children before their parent, a broken reference is reported as an entity
of its own, and an error that is keyed by a name instead of a position vanishes - the "lost cause" of references.
"""

from __future__ import annotations

from typing import Any

from konverge.lab.kong.declarative.failures import CODE, NAME, Errors, print_lua, to_json
from konverge.lab.kong.schema.registry import Registry
from konverge.lab.kong.schema.typedefs import check_uuid

FIRST = ("upstreams", "services", "routes", "consumers")
"""The order in which a real Kong was seen to visit the sections."""


def describe_flattened(errors: Errors, document: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """Return the 400 body with ``flattened_errors``; an empty list is the object {}, as Lua prints it."""
    found: list[dict[str, Any]] = []
    rest = _flatten_sections(errors, document, registry, found)
    return {
        "code": CODE,
        "name": NAME,
        "flattened_errors": found or {},
        "fields": to_json(rest),
        "message": f"declarative config is invalid: {print_lua(rest)}",
    }


def _rank(name: str) -> int:
    return FIRST.index(name) if name in FIRST else len(FIRST)


def _flatten_sections(
    errors: Errors, owner: dict[str, Any], registry: Registry, found: list[dict[str, Any]]
) -> Errors:
    rest: Errors = {}
    for name in sorted(errors, key=lambda key: _rank(str(key))):
        section, entities = errors[name], owner.get(name)
        if name not in registry.entities or not isinstance(section, dict) or not isinstance(entities, list):
            rest[name] = section
            continue
        for position in sorted((key for key in section if isinstance(key, int)), reverse=True):
            if position < len(entities):
                _flatten_entity(name, section[position], entities[position], registry, found)
    return rest


def _flatten_entity(kind: str, errors: Any, entity: Any, registry: Registry, found: list[dict[str, Any]]) -> None:
    if not isinstance(entity, dict):
        return
    children = registry.children[kind]
    if isinstance(errors, dict):
        nested = {name: errors[name] for name in errors if name in children}
        kept = _flatten_sections(nested, entity, registry, found)
        own = {name: errors[name] for name in errors if name not in children} | kept
        own, promoted = _promote_references(kind, own, entity, registry, found)
    else:
        own, promoted = {"@entity": {0: errors}}, set()
    problems = list(_list_problems(own, ""))
    if problems:
        shown = {name: value for name, value in entity.items() if name not in children and name not in promoted}
        found.append(_describe_entity(kind, shown, problems))


def _promote_references(
    kind: str, errors: Errors, entity: dict[str, Any], registry: Registry, found: list[dict[str, Any]]
) -> tuple[Errors, set[str]]:
    own: Errors = {}
    promoted: set[str] = set()
    fields = registry.entities[kind].fields
    for name, error in errors.items():
        field, value = fields.get(name), entity.get(name)
        if field is not None and field.kind == "foreign" and isinstance(error, dict) and isinstance(value, dict):
            promoted.add(name)
            found.append(_describe_entity(field.reference, value, list(_list_problems(error, ""))))
        else:
            own[name] = error
    return own, promoted


def _list_problems(errors: Errors, prefix: str) -> list[dict[str, Any]]:
    problems: list[dict[str, Any]] = []
    for name in reversed(list(errors)):
        error = errors[name]
        if name == "@entity":
            messages = error.values() if isinstance(error, dict) else [error]
            problems += [{"type": "entity", "message": message} for message in messages]
            continue
        path = prefix + (str(name + 1) if isinstance(name, int) else str(name))
        if isinstance(error, dict):
            problems += _list_problems(error, path + ".")
        else:
            problems.append({"field": path, "type": "field", "message": error})
    return problems


def _describe_entity(kind: str, entity: dict[str, Any], problems: list[dict[str, Any]]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "errors": problems,
        "entity": entity,
        "entity_type": kind[:-1] if kind.endswith("s") else kind,
    }
    if isinstance(entity.get("name"), str):
        described["entity_name"] = entity["name"]
    if isinstance(entity.get("id"), str) and check_uuid(entity["id"]) is None:
        described["entity_id"] = entity["id"]
    tags = entity.get("tags")
    if isinstance(tags, list) and tags:
        described["entity_tags"] = tags
    return described
