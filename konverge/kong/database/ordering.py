"""The order of operations: no reference ever leads nowhere, and traffic never meets half of a change; pure.

First everything new is made, what is referred to before what refers: certificates, upstreams with their targets,
services, plugins, routes; a new route with plugins of its own is opened after them. What must not linger goes then:
targets that are no longer meant, plugins whose owner stays. The marker comes last: who answers with it has seen all
of that. Everything else old goes when all proxies have: until then somebody may still route by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from konverge.kong.database.kinds import KINDS
from konverge.kong.database.marking import is_marker
from konverge.kong.database.operations import Action, Operation, Stage

WRITES = frozenset({Action.CREATE, Action.UPDATE})
Test = Callable[[Operation], bool]


def _is_marker(operation: Operation) -> bool:
    return is_marker(operation.body or operation.former)


def _writes(*kinds: str) -> Test:
    return lambda o: o.action in WRITES and o.kind in kinds and not _is_marker(o)


def _deletes(*kinds: str) -> Test:
    return lambda o: o.action is Action.DELETE and o.kind in kinds and not _is_marker(o)


def _ranked(rank: int) -> Test:
    return _writes(*(kind.name for kind in KINDS.values() if kind.rank == rank))


PREPARE: tuple[Test, ...] = (
    lambda o: o.action is Action.ASIDE,
    _deletes("ca_certificates"),
    _ranked(0),
    _ranked(1),
    _ranked(2),
    _deletes("targets"),
    _writes("services"),
    lambda o: _writes("plugins")(o) and not o.body.get("route"),
    _writes("routes"),
    _writes("plugins"),
    lambda o: o.action is Action.OPEN,
    _deletes("plugins"),
    lambda o: o.action is Action.DELETE and _is_marker(o),
    lambda o: o.kind == "routes" and _is_marker(o),
    _is_marker,
)
"""An operation belongs to the first stage that takes it."""

REMOVE: tuple[Test, ...] = (
    _deletes("routes"),
    _deletes("services"),
    _deletes(*(kind.name for kind in KINDS.values() if kind.rank == 2), "snis"),
    _deletes("upstreams", "consumers"),
    _deletes("certificates", "consumer_groups", "vaults"),
)


def order(operations: Iterable[Operation]) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    """Return the stages before and after the proxies have followed; empty ones are left out."""
    tests = (*PREPARE, *REMOVE)
    stages: list[list[Operation]] = [[] for _ in tests]
    for operation in operations:
        place = next(i for i, test in enumerate(tests) if test(operation))
        stages[place].append(operation)
    prepare, remove = stages[: len(PREPARE)], stages[len(PREPARE) :]
    return tuple(tuple(s) for s in prepare if s), tuple(tuple(s) for s in remove if s)
