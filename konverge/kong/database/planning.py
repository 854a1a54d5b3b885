"""Reads a database and says what would have to be done; nothing is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

from konverge.kong.database.calling import Caller
from konverge.kong.database.diffing import find_operations
from konverge.kong.database.kinds import KINDS
from konverge.kong.database.marking import read_hash
from konverge.kong.database.operations import Action, Operation, Plan
from konverge.kong.database.ordering import order
from konverge.kong.database.pairing import match
from konverge.kong.database.reading import AT_ONCE, Stored, find_foreign, read_stored
from konverge.kong.declarative.flattening import flatten


async def plan(caller: Caller, document: Mapping[str, Any], tag: str) -> Plan:
    """Return the operations that make the entities with a tag what a document says.

    Invalid where the document has a kind that no database gets; KonvergeError where the gateway does not answer.
    """
    stored = await read_stored(caller, tag, _name_plugins(document))
    found = compare_stored(document, stored, tag)
    kept = await _find_kept(caller, found, stored, tag)
    if not kept:
        return found
    held = {id(operation) for operation, _ in kept}
    remove = tuple(tuple(o for o in stage if id(o) not in held) for stage in found.remove)
    return Plan(found.prepare, tuple(s for s in remove if s), kept, found.skipped, found.stored_hash)


def compare_stored(document: Mapping[str, Any], stored: Stored, tag: str) -> Plan:
    """Return the operations that lead from what is stored to what a document says; pure."""
    matching = match(document, stored, tag)
    prepare, remove = order(find_operations(matching))
    held = read_hash(stored.entities.get("routes", {}).values())
    return Plan(prepare, remove, skipped=matching.skipped, stored_hash=held)


def _name_plugins(document: Mapping[str, Any]) -> Iterator[str]:
    return (str(e.get("name")) for key, e in flatten(document).entities.items() if key[0] == "plugins")


async def _find_kept(caller: Caller, found: Plan, stored: Stored, tag: str) -> tuple[tuple[Operation, str], ...]:
    """Return the deletions that would take along what is not ours, with the reason."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def look(operation: Operation) -> tuple[Operation, str] | None:
        if operation.kind == "upstreams":
            foreign = [f"target {name}" for name in stored.foreign_targets.get(operation.id, ())]
        else:
            async with limit:
                foreign = await find_foreign(caller, KINDS[operation.kind], operation.id, tag)
        return (operation, f"has what is not Konverge's: {', '.join(foreign)}") if foreign else None

    deletions = [o for stage in found.remove for o in stage if o.action is Action.DELETE and KINDS[o.kind].takes]
    return tuple(one for one in await asyncio.gather(*(look(o) for o in deletions)) if one is not None)
