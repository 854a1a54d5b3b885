"""Does what a plan says, stage by stage, and keeps a journal of what was done.

The journal lives in memory: a run that is killed leaves the database as it is, and the next run computes the
difference anew.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from konverge.errors import KonvergeError, RetryableError
from konverge.kong.database.calling import Caller, Reply
from konverge.kong.database.kinds import KINDS, locate_collection, locate_entity
from konverge.kong.database.operations import Action, Operation, Stage
from konverge.kong.outcomes import Refused
from konverge.kong.refusals import parse_refusal, show_path, walk_messages

AT_ONCE = 8
"""Operations of a stage under way at the same time; Kong's pool has 16 connections to the database by default."""
ATTEMPTS = 4
"""How often a call is made before it counts as failed; every call may be repeated."""
PAUSE = 0.2
"""Seconds before the first repeat; doubled for each further one."""

_SCHEMA, _PRIMARY, _FOREIGN, _UNIQUE = 2, 3, 4, 5
"""Kong's numbers of errors (``kong/db/errors.lua``)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An operation that was not done. ``refusal``: what Kong has against the entity; None for every other cause."""

    operation: Operation
    reason: str
    message: str
    refusal: Refused | None = None
    retryable: bool = False
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the failure as a JSON object; it shows no secret."""
        return {**self.operation.to_json(), "reason": self.reason, "message": self.message}


@dataclass(slots=True)
class Journal:
    """What was done, stage by stage; an operation that ended without an answer counts, it may have been done."""

    stages: list[list[Operation]] = field(default_factory=list)
    kept: list[Failure] = field(default_factory=list)
    """Deletions that Kong refused because something that is not ours refers to the entity."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of the stages that were tried: all of them, or those up to the first with a failure."""

    done: tuple[Operation, ...] = ()
    failed: tuple[Failure, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything was done."""
        return not self.failed


async def validate(caller: Caller, stages: Sequence[Stage]) -> tuple[Failure, ...]:
    """Ask Kong whether it would take the entities as they are; nothing is stored. References are not looked at."""
    limit = asyncio.Semaphore(AT_ONCE)
    written = [o for stage in stages for o in stage if o.action in (Action.CREATE, Action.UPDATE, Action.OPEN)]

    async def check(operation: Operation) -> Failure | None:
        if KINDS[operation.kind].patched and operation.action is not Action.CREATE:
            return None
        name = "consumer_groups" if operation.kind == "consumer_group_consumers" else operation.kind
        if name != operation.kind:
            return None
        async with limit:
            try:
                reply = await persist(caller, "POST", f"/schemas/{name}/validate", operation.body)
            except KonvergeError as error:
                return _broken(operation, error)
        return None if reply.ok else explain_refusal(operation, reply)

    return tuple(failure for failure in await asyncio.gather(*map(check, written)) if failure is not None)


async def apply(caller: Caller, stages: Sequence[Stage], journal: Journal) -> Applied:
    """Do the operations of each stage together, and stop after the first stage with a failure."""
    done: list[Operation] = []
    limit = asyncio.Semaphore(AT_ONCE)
    for stage in stages:
        entry: list[Operation] = []
        journal.stages.append(entry)

        async def run(operation: Operation, entry: list[Operation] = entry) -> Failure | None:
            async with limit:
                return await _run(caller, operation, entry, journal)

        failed = [failure for failure in await asyncio.gather(*map(run, stage)) if failure is not None]
        kept = {id(failure.operation) for failure in (*failed, *journal.kept)}
        done += [operation for operation in stage if id(operation) not in kept]
        if failed:
            return Applied(tuple(done), tuple(failed))
    return Applied(tuple(done))


async def _run(caller: Caller, operation: Operation, entry: list[Operation], journal: Journal) -> Failure | None:
    try:
        reply = await perform(caller, operation)
    except KonvergeError as error:
        # It may have been done: taking it back does no harm where it was not.
        entry.append(operation)
        return _broken(operation, error)
    if reply.ok or (operation.action is Action.DELETE and reply.status == 404):
        entry.append(operation)
        return None
    failure = explain_refusal(operation, reply)
    if operation.action is Action.DELETE and reply.code == _FOREIGN:
        journal.kept.append(failure)
        return None
    return failure


async def perform(caller: Caller, operation: Operation) -> Reply:
    """Do one operation; what may have been done by an attempt without an answer is recognised."""
    kind = KINDS[operation.kind]
    match operation.action:
        case Action.DELETE:
            return await persist(caller, "DELETE", locate_entity(kind, operation.former))
        case Action.ASIDE:
            return await persist(caller, "PATCH", locate_entity(kind, operation.former), operation.body)
        case Action.CREATE:
            return await create(caller, operation.kind, operation.body)
    method = "PATCH" if kind.patched or kind.name == "targets" else "PUT"
    return await persist(caller, method, locate_entity(kind, operation.body), operation.body)


async def create(caller: Caller, kind_name: str, body: Mapping[str, Any]) -> Reply:
    """Create an entity, never over another one; our own, left by an attempt without an answer, counts as created."""
    kind = KINDS[kind_name]
    sent: Mapping[str, Any] = body
    if kind_name == "consumer_group_consumers":
        sent = {"consumer": body["consumer"]["id"]}
    reply = await persist(caller, "POST", locate_collection(kind, body), sent)
    if reply.code not in (_PRIMARY, _UNIQUE) or "id" not in body:
        return reply
    found = await persist(caller, "GET", locate_entity(kind, body))
    ours = found.ok and found.body.get("id") == body["id"] and set(body.get("tags") or ()) & _owners(found.body)
    return Reply(200, found.body) if ours and _equal_enough(body, found.body) else reply


def _owners(entity: Mapping[str, Any]) -> set[str]:
    return {tag for tag in entity.get("tags") or () if str(tag).startswith("konverge-fleet:")}


def _equal_enough(body: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    plain = (str, int, float, bool)
    return all(found.get(k) == v for k, v in body.items() if isinstance(v, plain) and k != "password")


async def persist(caller: Caller, method: str, path: str, body: Mapping[str, Any] | None = None) -> Reply:
    """Call until there is an answer, a bounded number of times. Raises what the last attempt raised."""
    pause = PAUSE
    for _ in range(ATTEMPTS - 1):
        try:
            return await caller.call(method, path, body)
        except RetryableError as error:
            await asyncio.sleep((error.delay or pause) * random.uniform(0.5, 1.0))
            pause *= 2
    return await caller.call(method, path, body)


def _broken(operation: Operation, error: KonvergeError) -> Failure:
    return Failure(
        operation, error.reason, error.message, retryable=isinstance(error, RetryableError), hint=error.hint
    )


def explain_refusal(operation: Operation, reply: Reply) -> Failure:
    """Return a failure with Kong's complaints, secrets masked, tied to the Kubernetes object of the entity."""
    complaints = [{"field": path, "message": text} for path, text in _list_complaints(reply)]
    entry = {
        "entity_type": operation.kind.removesuffix("s"),
        "entity_name": operation.body.get("name") or operation.former.get("name") or "",
        "entity_id": operation.id,
        "entity_tags": list(operation.body.get("tags") or operation.former.get("tags") or ()),
        "entity": {**operation.former, **operation.body},
        "errors": complaints,
    }
    refusal = parse_refusal(orjson.dumps({"flattened_errors": [entry]}, default=str))
    texts = [f"{e.field}: {e.message}" if e.field else e.message for error in refusal.errors for e in error.errors]
    message = f"{operation.label}: {'; '.join(texts)}"
    reason = {_UNIQUE: "NameTaken", _PRIMARY: "NameTaken", _FOREIGN: "StillReferenced"}.get(
        reply.code, "EntityRefused"
    )
    return Failure(operation, reason, message, refusal)


def _list_complaints(reply: Reply) -> list[tuple[str, str]]:
    fields = reply.body.get("fields")
    names = ", ".join(sorted(fields)) if isinstance(fields, Mapping) else ""
    match reply.code:
        case 3 | 5:
            # Kong's sentence shows the value, which may be a key: the fields are enough.
            return [("", f"something that is not Konverge's has the same {names or 'id'}")]
        case 4:
            return [("", str(reply.body.get("message") or "a reference leads nowhere"))]
    found = [(show_path(path) if "@entity" not in path else "", text) for path, text in walk_messages(fields)]
    return found or [("", str(reply.body.get("message") or f"HTTP {reply.status}"))]
