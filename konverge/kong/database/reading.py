"""Reads what a database holds of a fleet, and the schemas that tell what Kong fills in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from konverge.kong.database.calling import Caller, list_collection
from konverge.kong.database.kinds import KINDS, UNTAGGED, Kind
from konverge.kong.database.marking import read_hash
from konverge.kong.marker import TAG as MARKER_TAG

Entity = dict[str, Any]

AT_ONCE = 8
"""Requests under way at the same time."""
_CORE_SCHEMAS = ("services", "routes", "upstreams")


@dataclass(slots=True)
class Stored:
    """The entities that carry a fleet's tag, by kind and id, as Kong shows them."""

    entities: dict[str, dict[str, Entity]] = field(default_factory=dict, repr=False)
    """Only kinds that the gateway knows."""
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    foreign_targets: dict[str, list[str]] = field(default_factory=dict)
    """Id of an upstream of ours -> targets in it that are not."""

    def find(self, kind: str, entity_id: str) -> Entity | None:
        """Return an entity of ours."""
        return self.entities.get(kind, {}).get(entity_id)


async def read_stored(caller: Caller, tag: str, plugins: Iterable[str] = ()) -> Stored:
    """Read the entities with a tag, and the schemas of the core and of these plugins besides.

    :raises KonvergeError: the gateway does not answer, or refuses.
    """
    limit = asyncio.Semaphore(AT_ONCE)
    plain = [kind for kind in KINDS.values() if kind.path and kind.name != "targets"]
    found = await asyncio.gather(*(_read(caller, f"/{kind.path}", tag, limit) for kind in plain))
    stored = Stored()
    for kind, entities in zip(plain, found, strict=True):
        if entities is not None:
            stored.entities[kind.name] = {e["id"]: _clean(kind, e) for e in entities if tag in (e.get("tags") or ())}
    await asyncio.gather(
        _read_targets(caller, stored, tag, limit),
        _read_memberships(caller, stored, limit),
        _read_schemas(caller, stored, plugins, limit),
    )
    return stored


async def _read(caller: Caller, path: str, tag: str, limit: asyncio.Semaphore) -> list[Entity] | None:
    async with limit:
        return await list_collection(caller, path, tag)


def _clean(kind: Kind, entity: Entity) -> Entity:
    # The names of a certificate are a kind of their own.
    return {k: v for k, v in entity.items() if k != "snis"} if kind.name == "certificates" else entity


async def _read_targets(caller: Caller, stored: Stored, tag: str, limit: asyncio.Semaphore) -> None:
    # Under each upstream: whether there is a collection of all targets depends on Kong's version.
    owners = list(stored.entities.get("upstreams", {}))
    found = await asyncio.gather(*(_read(caller, f"/upstreams/{owner}/targets", "", limit) for owner in owners))
    targets = stored.entities.setdefault("targets", {})
    for owner, entities in zip(owners, found, strict=True):
        for entity in entities or ():
            if tag in (entity.get("tags") or ()):
                targets[entity["id"]] = entity
            else:
                stored.foreign_targets.setdefault(owner, []).append(str(entity.get("target")))


async def _read_memberships(caller: Caller, stored: Stored, limit: asyncio.Semaphore) -> None:
    groups = stored.entities.get("consumer_groups")
    if groups is None:
        return
    found = await asyncio.gather(
        *(_read(caller, f"/consumer_groups/{group}/consumers", "", limit) for group in groups)
    )
    rows = stored.entities.setdefault("consumer_group_consumers", {})
    for group, members in zip(groups, found, strict=True):
        for member in members or ():
            row = {"consumer_group": {"id": group}, "consumer": {"id": member["id"]}}
            rows[f"{group}/{member['id']}"] = row


async def _read_schemas(caller: Caller, stored: Stored, plugins: Iterable[str], limit: asyncio.Semaphore) -> None:
    used = {str(plugin.get("name")) for plugin in stored.entities.get("plugins", {}).values()} | set(plugins)
    paths = [*_CORE_SCHEMAS, *(f"plugins/{name}" for name in sorted(used))]

    async def read(path: str) -> Mapping[str, Any] | None:
        async with limit:
            reply = await caller.call("GET", f"/schemas/{quote(path)}")
            return reply.body if reply.ok else None

    found = await asyncio.gather(*(read(path) for path in paths))
    stored.schemas = {path: schema for path, schema in zip(paths, found, strict=True) if schema is not None}


async def read_stored_hash(caller: Caller, tag: str) -> str:
    """Return the hash of the revision that a database holds of a fleet; "" where it holds none."""
    routes = await list_collection(caller, "/routes", f"{MARKER_TAG},{tag}")
    return read_hash(routes or ())


async def find_foreign(caller: Caller, kind: Kind, entity_id: str, tag: str) -> list[str]:
    """Return what is not ours and would be deleted along with an entity of ours, in words."""
    found: list[str] = []
    for child, path in kind.takes.items():
        if child in UNTAGGED or not path:
            continue
        entities = await list_collection(caller, f"/{kind.path}/{entity_id}/{path}") or []
        singular = child.removesuffix("s").replace("_", " ")
        found += [
            f"{singular} {entity.get('name') or entity.get('id')}"
            for entity in entities
            if tag not in (entity.get("tags") or ())
        ]
    return found
