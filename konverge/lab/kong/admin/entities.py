"""Collections and entities: reading, paging, filtering by tags; writing is refused without a database.

With one, :mod:`konverge.lab.kong.database.answering` answers what writes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from konverge.lab.kong.admin.answers import Answer, coded, not_allowed, not_found, ok, say
from konverge.lab.kong.admin.configuring import UNEXPECTED
from konverge.lab.kong.schema.fields import EntitySchema
from konverge.lab.kong.schema.typedefs import check_uuid
from konverge.lab.kong.state import Entity

if TYPE_CHECKING:
    from konverge.lab.kong.node import StandInKong

DEFAULT_SIZE = 100
MAX_SIZE = 1000
COLLECTION = "GET, HEAD, OPTIONS, POST"
SINGLE = "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"
REVERSED = frozenset({"targets"})
"""Collections that Kong lists from the latest to the first."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a path means: a collection, or one entity in it."""

    schema: EntitySchema
    items: Sequence[Entity]
    path: str
    key: str | None = None
    """None for the collection."""
    single: Entity | None = None
    """The entity of ``key``, or the one a reference leads to."""
    parent_field: str = ""
    parent_id: str = ""
    """Under another entity: the field that refers to it, and its id."""


def locate(node: StandInKong, parts: list[str]) -> Place | Answer | None:
    """Find out what a path means; None where it means nothing in this API."""
    registry, snapshot = node.registry, node.shown
    schema = registry.by_path.get(parts[0])
    if schema is None or len(parts) > 4:
        return None
    items = snapshot.list(schema.name)
    if len(parts) == 1:
        return Place(schema, items, "/" + parts[0])
    owner = snapshot.find(schema.name, parts[1], registry)
    if len(parts) == 2:
        return Place(schema, items, "/" + "/".join(parts), parts[1], owner)
    child = _child(node, schema, parts[2])
    if child is None:
        return _follow(node, schema, owner, parts) if len(parts) == 3 else None
    if owner is None:
        return not_found()
    field = registry.children[schema.name][child.name]
    nested = [item for item in snapshot.list(child.name) if (item.get(field) or {}).get("id") == owner["id"]]
    if child.name in REVERSED:
        nested.reverse()
    path = "/" + "/".join(parts)
    if len(parts) == 3:
        return Place(child, nested, path, parent_field=field, parent_id=owner["id"])
    found = next((item for item in nested if parts[3] in (item["id"], item.get(child.endpoint_key))), None)
    return Place(child, nested, path, parts[3], found, field, owner["id"])


def _child(node: StandInKong, schema: EntitySchema, name: str) -> EntitySchema | None:
    for kind in node.registry.children[schema.name]:
        child = node.registry.entities[kind]
        if name == (child.nested_name or child.path):
            return child
    return None


def _follow(node: StandInKong, schema: EntitySchema, owner: Entity | None, parts: list[str]) -> Place | Answer | None:
    """Resolve /routes/x/service: the entity that a reference leads to."""
    field = schema.fields.get(parts[2])
    if field is None or field.kind != "foreign":
        return None
    reference = (owner or {}).get(parts[2])
    if reference is None:
        return not_found()
    target = node.registry.entities[field.reference]
    found = node.shown.find(field.reference, reference["id"], node.registry)
    return Place(target, (), "/" + "/".join(parts), reference["id"], found)


def answer_place(node: StandInKong, place: Place, method: str, query: dict[str, Any]) -> Answer:
    """Answer a request for a collection or an entity."""
    if method in ("GET", "HEAD"):
        if place.key is None:
            return _list(node, place, query)
        return ok(present(node, place.schema, place.single)) if place.single is not None else not_found()
    if method == "OPTIONS":
        return options(SINGLE if place.key is not None else COLLECTION)
    return _refuse_write(place, method)


def options(methods: str) -> Answer:
    """Return the answer to OPTIONS."""
    return Answer(
        204,
        headers=[
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Allow-Headers", "Content-Type"),
            ("Allow", methods),
        ],
    )


def present(node: StandInKong, schema: EntitySchema, entity: Entity) -> Entity:
    """Return an entity as the API shows it: certificates list their names."""
    if schema.name == "certificates":
        names = [sni["name"] for sni in node.shown.list("snis") if sni["certificate"]["id"] == entity["id"]]
        return entity | {"snis": names}
    return entity


def _refuse_write(place: Place, method: str) -> Answer:
    kind = place.schema.name
    if place.key is None:
        return _unsupported(f"create '{kind}' entities") if method == "POST" else not_allowed()
    by = "" if check_uuid(place.key) is None else f" by '{place.schema.endpoint_key}'"
    if method == "PUT":
        return _unsupported(f"create or update '{kind}' entities{by}")
    if method == "DELETE":
        return Answer(204) if place.single is None else _unsupported(f"delete '{kind}' entities{by}")
    if method == "PATCH":
        return find_unknown(place) if place.single is None else _unsupported(f"update '{kind}' entities{by}")
    return not_allowed()


def _unsupported(what: str) -> Answer:
    return coded(405, 12, "operation unsupported", f"cannot {what} when not using a database")


def find_unknown(place: Place) -> Answer:
    """Return the answer to a change of an entity that does not exist."""
    key = place.key or ""
    field = "id" if check_uuid(key) is None else place.schema.endpoint_key or "id"
    how = "primary key " if field == "id" else ""
    return coded(404, 6, "not found", f"could not find the entity with {how}'{{{field}=\"{key}\"}}'", {field: key})


def _list(node: StandInKong, place: Place, query: dict[str, Any]) -> Answer:
    size = _size(query)
    if size is None:
        return coded(400, 9, "invalid size", f"size must be an integer between 1 and {MAX_SIZE}")
    items: Sequence[Entity] = place.items
    tags = query.get("tags")
    if isinstance(tags, str):
        if node.follower is None and any(item.get("tags") is None for item in items):
            # Without a database a real Kong trips over entities without tags here.
            return say(500, UNEXPECTED)
        items = filter_tags(items, tags)
    start = 0
    offset = query.get("offset")
    if isinstance(offset, str):
        decoded = _decode(offset)
        if decoded is None:
            return coded(400, 7, "invalid offset", f"'{offset}' is not a valid offset: bad base64 encoding")
        start = next((at for at, item in enumerate(items) if item["id"] >= decoded), len(items))
    shown = [present(node, place.schema, item) for item in items[start : start + size]]
    body: dict[str, Any] = {"data": shown}
    if start + size < len(items):
        body["offset"] = base64.b64encode(items[start + size]["id"].encode()).decode()
        rest = {name: value for name, value in query.items() if name not in ("offset", "page")}
        body["next"] = f"{place.path}?{urlencode(rest | {'offset': body['offset']})}"
    else:
        body["next"] = None
    return ok(body)


def _size(query: dict[str, Any]) -> int | None:
    text = query.get("size")
    if text is None:
        return DEFAULT_SIZE
    try:
        size = int(str(text))
    except ValueError:
        return None
    return size if 1 <= size <= MAX_SIZE else None


def _decode(offset: str) -> str | None:
    try:
        return base64.b64decode(offset, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None


def filter_tags(items: Sequence[Entity], tags: str) -> list[Entity]:
    """Filter by tags: "a,b" means both, "a/b" means either."""
    if "/" in tags:
        wanted = set(tags.split("/"))
        return [item for item in items if wanted & set(item.get("tags") or ())]
    required = set(tags.split(","))
    return [item for item in items if required <= set(item.get("tags") or ())]


def list_tags(node: StandInKong, wanted: str | None) -> Answer:
    """Answer /tags and /tags/x."""
    rows = [
        {"entity_name": kind, "entity_id": entity["id"], "tag": tag}
        for kind, entities in node.shown.entities.items()
        for entity in entities.values()
        for tag in entity.get("tags") or ()
        if wanted is None or tag == wanted
    ]
    return ok({"data": rows, "next": None})
