"""Creating, replacing, changing and deleting entities, with the constraints of Kong's tables.

What a deletion does to the entities that refer to the deleted one follows ``on_delete`` in Kong's schemas: plugins,
targets, credentials and SNIs go along; routes keep their service from going, services and upstreams their client
certificate.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import orjson

from konverge.lab.kong.admin.info import violation
from konverge.lab.kong.database.store import Transaction
from konverge.lab.kong.database.violations import Refused, duplicate, missing_target, primary_key, still_referenced
from konverge.lab.kong.declarative.compiling import complete, derive, stamp
from konverge.lab.kong.declarative.validating import validate_entity
from konverge.lab.kong.schema.fields import EntitySchema, Field
from konverge.lab.kong.schema.registry import Registry

Entity = dict[str, Any]

RESTRICTING = frozenset(
    {("routes", "service"), ("services", "client_certificate"), ("upstreams", "client_certificate")}
)
"""(kind, field) of references that keep their target from being deleted; all others are deleted along."""


@dataclass(slots=True)
class Writer:
    """One write: a transaction, the schemas, and the time that stamps get."""

    transaction: Transaction
    registry: Registry
    now: float

    def create(self, schema: EntitySchema, given: Entity) -> Entity:
        """Insert; Refused where the id or a unique value is taken."""
        known = isinstance(given.get("id"), str) and self.transaction.get(schema.name, given["id"]) is not None
        if known:
            self._validate(schema, given)
            raise primary_key(given["id"])
        return self._store(schema, {"id": str(uuid.uuid4()), **given}, given)

    def replace(self, schema: EntitySchema, entity_id: str, given: Entity) -> Entity:
        """Insert or replace: what is not given gets its default."""
        before = self.transaction.get(schema.name, entity_id)
        created = {"created_at": before["created_at"]} if before is not None else {}
        return self._store(schema, {**created, **given, "id": entity_id}, given)

    def change(self, schema: EntitySchema, before: Entity, given: Entity) -> Entity:
        """Change what is given: records are merged, null takes a value away."""
        fields = dict(schema.fields)
        if schema.name == "plugins":
            fields["config"] = self.registry.plugin_field(str(before["name"])) or Field("any")
        own = {name: value for name, value in before.items() if name != "cert_digest"}
        expanded = _expand(schema, given)
        merged = _merge(fields, own, expanded)
        return self._store(schema, {**merged, "id": before["id"]}, given)

    def delete(self, kind: str, entity_id: str) -> None:
        """Delete an entity and what goes along; Refused where something keeps it."""
        children = self.transaction.children(kind, entity_id)
        for child_kind, _, field in children:
            if (child_kind, field) in RESTRICTING:
                raise still_referenced(kind, child_kind)
        for child_kind, child_id, _ in children:
            if self.transaction.get(child_kind, child_id) is not None:
                self.delete(child_kind, child_id)
        self.transaction.drop(kind, entity_id)

    def _validate(self, schema: EntitySchema, entity: Entity) -> None:
        errors = validate_entity(schema, entity, self.registry)
        if errors:
            raise Refused(violation(errors if isinstance(errors, dict) else {"@entity": {0: errors}}))

    def _store(self, schema: EntitySchema, entity: Entity, given: Entity) -> Entity:
        names = entity.pop("snis", None) if schema.name == "certificates" else None
        self._validate(schema, entity)
        finished = complete(schema, entity, self.registry)
        stamp(schema, finished, self.now)
        derive(schema, finished, hash_passwords=given.get("password") is not None)
        links = self._check_links(schema, finished)
        uniques = self._check_uniques(schema, finished)
        self.transaction.put(schema.name, finished, uniques, links)
        if isinstance(names, list):
            self._set_names(finished, [str(name) for name in names])
        return finished

    def _check_links(self, schema: EntitySchema, entity: Entity) -> dict[str, tuple[str, str]]:
        links: dict[str, tuple[str, str]] = {}
        for name, field in schema.fields.items():
            if field.kind != "foreign" or entity.get(name) is None:
                continue
            value = entity[name]
            target_id = str(value["id"] if isinstance(value, dict) else value)
            if self.transaction.get(field.reference, target_id) is None:
                raise missing_target(name, field.reference, {"id": target_id})
            entity[name] = {"id": target_id}
            links[name] = (field.reference, target_id)
        return links

    def _check_uniques(self, schema: EntitySchema, entity: Entity) -> dict[str, str]:
        uniques: dict[str, str] = {}
        for fields in list_uniques(schema):
            values = {name: entity.get(name) for name in fields}
            if len(fields) == 1 and values[fields[0]] is None:
                continue
            name, value = ",".join(fields), orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()
            holder = self.transaction.find(schema.name, name, value)
            if holder is not None and holder != entity["id"]:
                raise duplicate(values)
            uniques[name] = value
        return uniques

    def _set_names(self, certificate: Entity, names: list[str]) -> None:
        """Give a certificate the SNIs of its ``snis`` field, and no others."""
        schema = self.registry.entities["snis"]
        kept = set()
        for kind, sni_id, _ in self.transaction.children("certificates", certificate["id"]):
            sni = self.transaction.get(kind, sni_id) if kind == "snis" else None
            if sni is not None and sni["name"] not in names:
                self.transaction.drop("snis", sni_id)
            elif sni is not None:
                kept.add(sni["name"])
        for name in names:
            if name not in kept:
                self.create(schema, {"name": name, "certificate": {"id": certificate["id"]}})


def list_uniques(schema: EntitySchema) -> list[tuple[str, ...]]:
    """Return the fields, or groups of fields, whose values are unique among the entities of a kind."""
    found: list[tuple[str, ...]] = [(name,) for name, field in schema.fields.items() if field.unique]
    if schema.cache_key and schema.cache_key not in found:
        found.append(schema.cache_key)
    return found


def _expand(schema: EntitySchema, given: Entity) -> Entity:
    expanded = {name: value for name, value in given.items() if name not in schema.shorthands}
    for name, expand in schema.shorthands.items():
        if given.get(name) is not None:
            fields, problem = expand(given[name])
            if problem is not None:
                raise Refused(violation({name: problem}))
            expanded = {**fields, **expanded}
    return expanded


def _merge(fields: Any, before: Entity, given: Entity) -> Entity:
    merged = dict(before)
    for name, value in given.items():
        field = fields.get(name)
        held = merged.get(name)
        if isinstance(value, dict) and isinstance(held, dict) and field is not None and field.kind == "record":
            merged[name] = _merge(field.fields, held, value)
        else:
            merged[name] = value
    return merged
