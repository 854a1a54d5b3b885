"""The operations that lead from what a database holds to what it should hold; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from konverge.kong.database.closing import close_route, is_closed
from konverge.kong.database.kinds import KINDS
from konverge.kong.database.marking import is_marker
from konverge.kong.database.operations import Action, Change, Operation
from konverge.kong.database.pairing import Entity, Matching
from konverge.kong.declarative.comparing import compare_entity
from konverge.kong.declarative.flattening import REFERENCES, Key, label
from konverge.kong.locating import find_reference


def find_operations(matching: Matching) -> list[Operation]:
    """Return what has to be done, in no order yet."""
    asides = _find_asides(matching)
    found = [operation for _, operation in asides.values()]
    formers = {key: {**matching.raw[key], **values} for key, (values, _) in asides.items()}
    for key in matching.wanted.entities:
        found += _write(matching, key, formers)
    found += _find_deletions(matching, formers)
    return found


def _find_asides(matching: Matching) -> dict[Key, tuple[Entity, Operation]]:
    """Return who has to give up a unique value first, with the values that it holds meanwhile."""
    holders = {
        (key[0], name, str(entity[name])): key
        for key, entity in matching.current.entities.items()
        for name in KINDS[key[0]].uniques
        if entity.get(name)
    }
    asides: dict[Key, dict[str, Any]] = {}
    for key, entity in matching.wanted.entities.items():
        for name in KINDS[key[0]].uniques:
            holder = holders.get((key[0], name, str(entity.get(name))))
            if holder is not None and matching.pairs.get(key) != holder:
                asides.setdefault(holder, {})[name] = f"aside-{matching.raw[holder]['id']}"
    return {key: (values, _set_aside(matching, key, values)) for key, values in asides.items()}


def _set_aside(matching: Matching, key: Key, values: Entity) -> Operation:
    former = {"id": matching.raw[key]["id"], **{name: matching.raw[key][name] for name in values}}
    return Operation(Action.ASIDE, key[0], former["id"], label(key, matching.current.entities[key]), values, former)


def _write(matching: Matching, key: Key, formers: Mapping[Key, Entity]) -> Iterator[Operation]:
    """Yield what creates or updates one wanted entity; nothing where it is as it should be."""
    entity, pair = matching.wanted.entities[key], matching.pairs.get(key)
    body = _compose(matching, key, entity)
    shown = Operation(
        Action.CREATE, key[0], matching.ids[key], label(key, entity), body, reference=find_reference(_tags(entity))
    )
    if pair is None:
        guarded = key[0] == "routes" and not is_marker(entity) and _has_plugins(matching, key)
        closed = close_route(body) if guarded else body
        yield replace(shown, body=closed)
        if closed != body:
            yield replace(shown, action=Action.OPEN, former=closed)
        return
    stored = matching.current.entities[pair]
    sides = (matching.wanted, matching.current)
    changes = tuple(
        Change(difference.field, difference.right, difference.left)
        for difference in compare_entity(key, entity, stored, matching.current.schemas, sides)
        if difference.field != "id"
    )
    if changes or pair in formers:
        closed_before = key[0] == "routes" and is_closed(stored)
        action = Action.OPEN if closed_before else Action.UPDATE
        former = formers.get(pair, matching.raw[pair])
        sent = _pick_changed(body, changes) if KINDS[key[0]].patched else body
        yield replace(shown, action=action, body=sent, former=former, changes=changes)


def _tags(entity: Entity) -> list[str]:
    return list(entity.get("tags") or ())


def _has_plugins(matching: Matching, route: Key) -> bool:
    return route[1][0] in matching.guarded_routes


def _pick_changed(body: Entity, changes: tuple[Change, ...]) -> Entity:
    names = {change.field.partition(".")[0] for change in changes} | set(REFERENCES) | {"id"}
    return {name: value for name, value in body.items() if name in names}


def _compose(matching: Matching, key: Key, entity: Entity) -> Entity:
    """Return an entity as it is sent: with the id that it has, and references by id."""
    body = {name: value for name, value in entity.items() if value is not None}
    if matching.ids[key]:
        body["id"] = matching.ids[key]
    for name, kind in REFERENCES.items():
        if name in body:
            body[name] = {"id": matching.find_id(kind, str(body[name]))}
    return body


def _find_deletions(matching: Matching, formers: Mapping[Key, Entity]) -> Iterator[Operation]:
    """Yield the deletions; what Kong deletes along with an entity is part of that entity's deletion."""
    doomed = {key: formers.get(key, matching.raw[key]) for key in matching.left_over}
    owned: dict[tuple[str, str], list[Key]] = {}
    for key, entity in doomed.items():
        for name, kind in REFERENCES.items():
            owner = entity.get(name)
            if isinstance(owner, Mapping) and key[0] in KINDS[kind].takes:
                owned.setdefault((kind, str(owner["id"])), []).append(key)
    gone = {(key[0], str(entity.get("id"))) for key, entity in doomed.items()}
    taken: set[Key] = set()
    for key in sorted(doomed, key=lambda key: -KINDS[key[0]].rank):
        entity = doomed[key]
        if _goes_along(key[0], entity, gone):
            continue
        takes = [child for child in owned.get((key[0], str(entity.get("id"))), ()) if child not in taken]
        taken.update(takes)
        yield Operation(
            Action.DELETE,
            key[0],
            str(entity.get("id") or ""),
            label(key, matching.current.entities[key]),
            former=entity,
            takes=tuple((child[0], doomed[child]) for child in sorted(takes, key=lambda c: KINDS[c[0]].rank)),
            reference=find_reference(_tags(entity)),
        )


def _goes_along(kind: str, entity: Entity, gone: set[tuple[str, str]]) -> bool:
    """Tell whether an owner of an entity is deleted too, and takes it along."""
    return any(
        isinstance(entity.get(name), Mapping)
        and kind in KINDS[owner].takes
        and (owner, str(entity[name]["id"])) in gone
        for name, owner in REFERENCES.items()
    )
