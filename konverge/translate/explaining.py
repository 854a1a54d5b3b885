"""Which Kong entities come from an object, and which objects a Kong entity comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from konverge.translate.drafts import Entity
from konverge.translate.entities import Entry
from konverge.translate.problems import ObjectRef, Problem, refer
from konverge.translate.store import Key, index_keys
from konverge.translate.translator import Translator

MADE = "made from"
SHAPED = "shaped by"
"""The object decides something about the entity, or would if it existed otherwise."""


class EntityRef(NamedTuple):
    """One Kong entity: the kind as in the document, and its name or what identifies it."""

    kind: str
    name: str


class Link(NamedTuple):
    """An entity and an object, and how they are related."""

    entity: EntityRef
    object_ref: ObjectRef
    relation: str


def explain_object(translator: Translator, key: Key) -> list[Link]:
    """Return the entities that are made from an object, or shaped by it. The translator must have rendered."""
    value = translator.objects.get(key)
    if value is None:
        return []
    ref = refer(key[0], value)
    made = set(_made_from(translator, ref))
    keys = [key, *index_keys(key, value)]
    shaped = {entity for entity in _shaped_by(translator, keys) if entity not in made}
    return sorted([Link(entity, ref, MADE) for entity in made] + [Link(entity, ref, SHAPED) for entity in shaped])


def explain_entity(translator: Translator, kind: str, name: str) -> list[Link]:
    """Return the objects that an entity is made from, or shaped by. The translator must have rendered."""
    entity = EntityRef(kind, name)
    candidates = _candidates(translator, entity)
    links = [link for key in candidates for link in explain_object(translator, key) if link.entity == entity]
    return sorted(links)


def problems_of(problems: Iterable[Problem], key: Key) -> list[Problem]:
    """Return the problems of one object."""
    return [problem for problem in problems if problem.object_ref.key == key]


def list_entities(translator: Translator) -> Iterator[tuple[EntityRef, Entity]]:
    """Yield every entity of the document, nested ones too."""
    for kind, entries in _lists(translator):
        for entry in entries:
            entity = entry.data
            yield EntityRef(kind, name_entity(kind, entity)), entity
            for route in entity.get("routes", ()) if kind == "services" else ():
                yield EntityRef("routes", route["name"]), route


def name_entity(kind: str, entity: Entity) -> str:
    """Return the name by which an entity is asked for."""
    if kind == "plugins":
        places = [f"{place} {entity[place]}" for place in _PLACES if entity.get(place)]
        return " on ".join([str(entity.get("name")), *([", ".join(places)] if places else [])])
    if kind == "consumer_group_consumers":
        return f"{entity['consumer_group']}/{entity['consumer']}"
    for field in ("name", "username", "custom_id", "prefix", "id"):
        if entity.get(field):
            return str(entity["prefix"] if kind == "vaults" else entity[field])
    return "(unnamed)"


_PLACES = ("service", "route", "consumer", "consumer_group")


def _lists(translator: Translator) -> Iterator[tuple[str, tuple[Entry, ...]]]:
    yield "services", translator.services.services.entries()
    yield "upstreams", translator.services.upstreams.entries()
    yield "plugins", translator.plugins.plugins.entries()
    yield "consumers", translator.consumers.consumers.entries()
    yield "consumer_groups", translator.consumers.consumer_groups.entries()
    yield from translator.small_lists()


def _made_from(translator: Translator, ref: ObjectRef) -> Iterator[EntityRef]:
    """Yield the entities that carry the tags of an object."""
    for name in translator.sources.services_of(ref.key):
        result = translator.services.results.get(name)
        if result is None:
            continue
        yield EntityRef("upstreams", result.upstream.data["name"])
        if result.service is not None:
            yield EntityRef("services", name)
            for part in translator.sources.parts_of(name):
                if refer(part.kind, part.source).key == ref.key:
                    yield from (EntityRef("routes", draft.entity["name"]) for draft in part.routes)
    for kind, entries in _lists(translator):
        for entry in entries:
            if _is_tagged(entry.data, ref):
                yield EntityRef(kind, name_entity(kind, entry.data))


def _is_tagged(entity: Entity, ref: ObjectRef) -> bool:
    tags: Any = entity.get("tags") or ()
    if f"k8s-name:{ref.name}" not in tags or f"k8s-kind:{ref.kind}" not in tags:
        return False
    return not ref.namespace or f"k8s-namespace:{ref.namespace}" in tags


def _shaped_by(translator: Translator, keys: list[Key]) -> Iterator[EntityRef]:
    names = translator.services.dependencies.affected(keys)
    if keys[0][0] != "Service" or not names:  # a source reads all its Services, a Kong service only its own
        for source in translator.sources.dependencies.affected(keys):
            names |= set(translator.sources.services_of(source))
    for name in names:
        result = translator.services.results.get(name)
        if result is not None:
            yield EntityRef("upstreams", result.upstream.data["name"])
            if result.service is not None:
                yield EntityRef("services", name)
                yield from (EntityRef("routes", route["name"]) for route in result.routes)
    for consumer in translator.consumers.dependencies.affected(keys):
        if consumer in translator.consumers.results:
            data = translator.consumers.results[consumer].entry.data
            yield EntityRef("consumers", name_entity("consumers", data))
    for plugin in translator.plugins.dependencies.affected(keys):
        for entry in translator.plugins.entries_of(plugin):
            yield EntityRef("plugins", name_entity("plugins", entry.data))


def _candidates(translator: Translator, entity: EntityRef) -> list[Key]:
    """Return the objects that can have to do with an entity; all of them where that is not known."""
    if entity.kind not in ("services", "upstreams", "routes"):
        return list(translator.objects)
    found: set[Key] = set()
    for name, result in translator.services.results.items():
        names = {name, result.upstream.data["name"], *(route["name"] for route in result.routes)}
        if entity.name in names:
            found |= translator.services.dependencies.reads.get(name, set())
            found |= set(translator.sources.sources_of(name))
            for source in translator.sources.sources_of(name):
                found |= translator.sources.dependencies.reads.get(source, set())
    return [key for key, value in translator.objects.items() if key in found or found & set(index_keys(key, value))]
