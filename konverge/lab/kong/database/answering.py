"""Writing requests of the Admin API with a database: POST, PUT, PATCH, DELETE on collections and entities."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from konverge.lab.kong.admin.answers import Answer, not_allowed, ok, page, say
from konverge.lab.kong.admin.configuring import UNEXPECTED
from konverge.lab.kong.admin.entities import Place, find_unknown, present
from konverge.lab.kong.admin.parameters import BadJson, CrashingJson, accepts, parse_body
from konverge.lab.kong.database.store import Transaction
from konverge.lab.kong.database.violations import Refused
from konverge.lab.kong.database.writing import Entity, Writer
from konverge.lab.kong.schema.typedefs import check_uuid
from konverge.lab.kong.wire.exchange import Request

if TYPE_CHECKING:
    from konverge.lab.kong.database.following import Follower
    from konverge.lab.kong.node import StandInKong

WRITING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
LONGEST = 10 << 20


async def answer_write(
    node: StandInKong, follower: Follower, place: Place, request: Request, query: dict[str, Any]
) -> Answer:
    """Answer a request that writes."""
    if request.method == "DELETE":
        given: Entity = {}
    else:
        content_type, body = request.headers.get("content-type"), await request.body.read_all(LONGEST)
        if body and not accepts(content_type):
            return page(415)
        try:
            given = query | parse_body(content_type, body)
        except BadJson:
            return say(400, "Cannot parse JSON body")
        except CrashingJson:
            return say(500, UNEXPECTED)
    if node.faults.write_delay:
        await asyncio.sleep(node.faults.write_delay)
    if node.faults.take("write_500"):
        return say(500, UNEXPECTED)
    try:
        answer = await follower.write(lambda open_: write_entity(node, place, request.method, given, open_))
    except Refused as refused:
        return refused.answer
    if node.faults.take("write_stored_500"):
        return say(500, UNEXPECTED)
    if isinstance(answer.body, dict) and "id" in answer.body:
        answer.body = present(node, place.schema, answer.body)
    return answer


def write_entity(node: StandInKong, place: Place, method: str, given: Entity, transaction: Transaction) -> Answer:
    """Write inside a transaction. Raises Refused."""
    writer = Writer(transaction, node.registry, node.now())
    schema = place.schema
    if place.parent_field and method != "DELETE":
        given = {**given, place.parent_field: {"id": place.parent_id}}
    if place.key is None:
        return Answer(201, writer.create(schema, given)) if method == "POST" else not_allowed()
    # The place was found in what the node had read; the transaction sees what is there now.
    before = transaction.get(schema.name, place.single["id"]) if place.single is not None else None
    if method == "DELETE":
        if before is not None:
            writer.delete(schema.name, before["id"])
        return Answer(204)
    if method == "PATCH":
        return ok(writer.change(schema, before, given)) if before is not None else find_unknown(place)
    if method == "PUT":
        return ok(_replace(writer, place, before, given))
    return not_allowed()


def _replace(writer: Writer, place: Place, before: Entity | None, given: Entity) -> Entity:
    schema, key = place.schema, place.key or ""
    if before is not None:
        named = {} if check_uuid(key) is None or not schema.endpoint_key else {schema.endpoint_key: key}
        return writer.replace(schema, before["id"], {**named, **given})
    if check_uuid(key) is None:
        return writer.replace(schema, key, given)
    return writer.create(schema, {**given, schema.endpoint_key: key} if schema.endpoint_key else given)
