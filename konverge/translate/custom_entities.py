"""KongCustomEntity: entities of types that plugins bring along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from konverge.translate.classes import selects_name
from konverge.translate.defaults import list_fields
from konverge.translate.entities import Entry
from konverge.translate.kinds import KONG
from konverge.translate.objects import namespace_of
from konverge.translate.problems import Object
from konverge.translate.referring import is_granted
from konverge.translate.settings import Schema
from konverge.translate.store import Scope

KIND = "KongCustomEntity"

RESERVED = frozenset(
    {
        "services",
        "routes",
        "upstreams",
        "targets",
        "consumers",
        "consumer_groups",
        "consumer_group_consumers",
        "plugins",
        "certificates",
        "snis",
        "ca_certificates",
        "vaults",
        "licenses",
    }
)
"""Types that have a kind of their own, or a list of their own in the document."""

DEFAULT_SCHEMAS: Mapping[str, Schema] = {
    "degraphql_routes": {"fields": [{"service": {"type": "foreign", "reference": "services"}}]}
}
"""What is known about types without asking a gateway."""


@dataclass(slots=True)
class Related:
    """What a plugin works on, as the ids that custom entities refer to."""

    services: list[str]
    routes: list[str]
    route_services: list[str]
    """The services that own the routes, distinct."""
    consumers: list[str]


RelatedOf = Mapping[tuple[str, str], Related]
"""Plugin key -> what it works on; absent where nothing refers to it."""


def translate_custom_entities(scope: Scope, related: RelatedOf) -> dict[str, list[Entry]]:
    """Return type -> entities, where a plugin's relations fill the foreign fields."""
    result: dict[str, list[Entry]] = {}
    if not scope.settings.on("KongCustomEntity"):
        return result
    for key, value in scope.find("all", KIND):
        spec = value.get("spec") or {}
        if not selects_name(scope, spec.get("controllerName")):
            continue
        kind = spec.get("type") or ""
        cause = _refuse(kind, spec)
        if cause:
            scope.report(KIND, value, "CustomEntityInvalid", f"It is left out: {cause}.")
            continue
        links = _link(value, kind, spec, scope, related)
        if links is None:
            continue
        fields = spec.get("fields") or {}
        for chosen in links:
            entity = {**fields, **{name: {"id": identifier} for name, (_, identifier) in chosen.items()}}
            ids = dict(chosen.values())
            order = [ids.get(reference, "") for reference in ("services", "routes", "consumers")]
            result.setdefault(kind, []).append(Entry((key[1], key[2], *order), entity))
    for entries in result.values():
        entries.sort()
    return result


def _refuse(kind: str, spec: Object) -> str:
    if not kind:
        return "spec.type is missing"
    if kind in RESERVED or kind.startswith("_"):
        return f"the type {kind} has a kind of its own"
    if not isinstance(spec.get("fields") or {}, dict):
        return "spec.fields must be an object"
    return ""


def _link(
    value: Object, kind: str, spec: Object, scope: Scope, related: RelatedOf
) -> Iterable[dict[str, tuple[str, str]]] | None:
    """Return the combinations of foreign field -> (reference, id); None where the entity must be left out."""
    parent = spec.get("parentRef") or {}
    if parent.get("group") != KONG or parent.get("kind") not in ("KongPlugin", "KongClusterPlugin"):
        return [{}]
    owner = parent.get("namespace") or namespace_of(value)
    name = parent.get("name") or ""
    cause = ""
    here = namespace_of(value)
    foreign = owner != here and parent["kind"] == "KongPlugin"
    if foreign and not is_granted(scope, owner, KONG, KIND, here, KONG, "KongPlugin", name):
        cause = f"no ReferenceGrant in {owner} allows it to use KongPlugin {owner}/{name}"
    found = scope.get(parent["kind"], owner if parent["kind"] == "KongPlugin" else "", name)
    if not cause and found is None:
        cause = f"its {parent['kind']} {name} does not exist"
    if cause:
        scope.report(KIND, value, "CustomEntityInvalid", f"It is left out: {cause}.")
        return None
    schemas = scope.settings.entity_schemas
    schema = (DEFAULT_SCHEMAS if schemas is None else schemas).get(kind) or {}
    relations = _relations(parent["kind"], owner, name, related, scope)
    return _combine(_foreign_fields(schema), relations)


def _relations(kind: str, owner: str, name: str, related: RelatedOf, scope: Scope) -> list[Related]:
    if kind == "KongPlugin":
        return [related[(owner, name)]] if (owner, name) in related else []
    shadowed = {key for key in related if key[1] == name and scope.get("KongPlugin", *key) is not None}
    return [related[key] for key in sorted(related) if key[1] == name and key not in shadowed]


def _foreign_fields(schema: Schema) -> list[tuple[str, str]]:
    return [
        (name, str(attributes.get("reference") or ""))
        for name, attributes in list_fields(schema)
        if attributes.get("type") == "foreign"
    ]


def _combine(fields: Sequence[tuple[str, str]], relations: Sequence[Related]) -> Iterable[dict[str, tuple[str, str]]]:
    services = _distinct(relations, "services") or _distinct(relations, "route_services")
    available = {
        "services": services,
        "routes": _distinct(relations, "routes"),
        "consumers": _distinct(relations, "consumers"),
    }
    used = [(name, reference) for name, reference in fields if available.get(reference)]
    names = [name for name, _ in used]
    choices = [[(reference, identifier) for identifier in available[reference]] for _, reference in used]
    return [dict(zip(names, chosen, strict=True)) for chosen in product(*choices)]


def _distinct(relations: Sequence[Related], field: str) -> list[str]:
    return list(dict.fromkeys(item for relation in relations for item in getattr(relation, field)))
