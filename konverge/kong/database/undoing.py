"""Takes back what was done, in reverse order, from the entities as they were before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from konverge.errors import KonvergeError
from konverge.kong.database.applying import AT_ONCE, Failure, Journal, create, explain_refusal, persist
from konverge.kong.database.calling import Caller, Reply
from konverge.kong.database.kinds import KINDS, locate_entity
from konverge.kong.database.operations import Action, Operation
from konverge.kong.database.passwords import KIND, recover_password

_DERIVED = frozenset({"updated_at", "ws_id", "cert_digest", "snis"})
"""What Kong works out by itself."""
_UNTOLD = "Kong stores the hash of the password only: it cannot be put back"


@dataclass(frozen=True, slots=True)
class Undone:
    """What was taken back, and what could not be."""

    undone: tuple[Operation, ...] = ()
    lost: tuple[Failure, ...] = ()


async def undo(caller: Caller, journal: Journal, passwords: Mapping[str, str] | None = None) -> Undone:
    """Take everything back, last stage first; what fails does not keep the rest from being tried.

    ``passwords`` (user name -> password) are those of the configuration that was in force before.
    """
    undone: list[Operation] = []
    lost: list[Failure] = []
    limit = asyncio.Semaphore(AT_ONCE)

    async def revert(operation: Operation) -> None:
        async with limit:
            failure = await _revert(caller, operation, passwords or {})
        if failure is None:
            undone.append(operation)
        else:
            lost.append(failure)

    while journal.stages:
        await asyncio.gather(*map(revert, journal.stages[-1]))
        journal.stages.pop()
    return Undone(tuple(undone), tuple(lost))


async def _revert(caller: Caller, operation: Operation, passwords: Mapping[str, str]) -> Failure | None:
    try:
        for reply in await _reverse(caller, operation, passwords):
            if not reply.ok and reply.status != 404:
                return explain_refusal(operation, reply)
    except KonvergeError as error:
        return Failure(operation, error.reason, error.message)
    if any(recover_password(credential, passwords) is None for credential in _find_hashed(operation)):
        return Failure(operation, "PasswordLost", f"{operation.label}: {_UNTOLD}")
    return None


async def _reverse(caller: Caller, operation: Operation, passwords: Mapping[str, str]) -> list[Reply]:
    kind = KINDS[operation.kind]
    if operation.action is Action.CREATE:
        return [await persist(caller, "DELETE", locate_entity(kind, operation.body))]
    if operation.action is Action.DELETE:
        gone = [(operation.kind, operation.former), *operation.takes]
        back = [(name, restore(name, entity, passwords)) for name, entity in gone]
        return [await create(caller, name, entity) for name, entity in back if entity]
    former = restore(operation.kind, operation.former, passwords)
    if kind.patched:
        former = {name: former[name] for name in operation.body if name in former and name != "id"}
    patched = operation.action is Action.ASIDE or kind.patched or kind.name == "targets"
    path = locate_entity(kind, operation.former)
    return [await persist(caller, "PATCH" if patched else "PUT", path, former)]


def restore(kind: str, entity: Mapping[str, Any], passwords: Mapping[str, str]) -> dict[str, Any]:
    """Return an entity of the database as it is sent to make it so again.

    A credential whose password is not known stays away, {}: its hash, sent as a password, would become one.
    """
    found = {name: value for name, value in entity.items() if name not in _DERIVED}
    if kind == KIND:
        password = recover_password(entity, passwords)
        return {} if password is None else {**found, "password": password}
    return found


def _find_hashed(operation: Operation) -> list[Mapping[str, Any]]:
    """Return the credentials of which a password was deleted or replaced."""
    if operation.action is Action.DELETE:
        gone = [(operation.kind, operation.former), *operation.takes]
        return [entity for kind, entity in gone if kind == KIND]
    replaced = operation.kind == KIND and operation.action is not Action.CREATE and "password" in operation.body
    return [operation.former] if replaced else []
