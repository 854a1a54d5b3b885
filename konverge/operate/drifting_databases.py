"""Compares the database of a fleet with a revision, through the Admin API of one proxy; nothing is changed.

What a sync would do is what differs: only entities with the fleet's tag are looked at, and values come redacted. The
marker is left out; whether it is there is told by the hash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import orjson

from konverge.errors import CheckRefused
from konverge.kong.database import Action, Operation, Plan
from konverge.kong.database.marking import is_marker
from konverge.kong.declarative import flatten
from konverge.kube.client import KubeClient
from konverge.model.drift import FieldDifference
from konverge.model.fleet import Fleet
from konverge.model.proxy import Proxy
from konverge.model.revision import Revision
from konverge.operate.databases import sync_database
from konverge.operate.ports import Gateways


@dataclass(frozen=True, slots=True)
class Contents:
    """What a database holds of a fleet, against a revision."""

    hash: str
    """Of the revision that the database says it holds; "" where it says nothing."""
    equal: bool
    """Whether a sync would change nothing, the marker included."""
    empty: bool
    """Whether it holds nothing of the fleet."""
    differing: int
    """How many entities differ."""
    differences: tuple[FieldDifference, ...]
    note: str
    """What a sync would leave as it is, and why."""
    silent: frozenset[str]
    """Names of the proxies that do not answer."""


async def read_contents(
    kube: KubeClient, fleet: Fleet, gateways: Gateways, revision: Revision, proxies: Sequence[Proxy]
) -> Contents | None:
    """Read a database and compare it; None where no proxy answers. Raises as :func:`sync_database`."""
    try:
        report = await sync_database(kube, fleet, gateways, revision, proxies, dry_run=True)
    except CheckRefused as refused:
        if refused.reason == "NoEndpoint":
            return None
        raise
    plan = report.plan
    told = [operation for operation in plan.operations if not is_marker(operation.body or operation.former)]
    return Contents(
        hash=plan.stored_hash,
        equal=plan.empty and plan.stored_hash == revision.hash,
        empty=await asyncio.to_thread(_is_empty, plan, revision),
        differing=len({(operation.kind, operation.id or operation.label) for operation in told}),
        differences=tuple(show_operations(told)),
        note="; ".join(f"{operation.label} is kept: it {reason}" for operation, reason in plan.kept),
        silent=frozenset(outcome.proxy for outcome in report.outcomes),
    )


def _is_empty(plan: Plan, revision: Revision) -> bool:
    """Tell whether every entity of the revision is missing, and there is nothing else."""
    actions = [operation.action for operation in plan.operations]
    if plan.stored_hash or plan.kept or not set(actions) <= {Action.CREATE, Action.OPEN}:
        return False
    wanted = sum(1 for key in flatten(orjson.loads(revision.content)).entities if key[0] not in plan.skipped)
    return wanted > 0 and actions.count(Action.CREATE) == wanted


def show_operations(operations: Iterable[Operation]) -> list[FieldDifference]:
    """Return what operations set right, as differences of (stored, desired), sorted."""
    found = [difference for operation in operations for difference in _show_operation(operation)]
    return sorted(found, key=lambda difference: (difference.kind, difference.entity, difference.field))


def _show_operation(operation: Operation) -> Iterator[FieldDifference]:
    kind, entity = operation.kind, operation.label
    match operation.action:
        case Action.CREATE:
            yield FieldDifference(kind=kind, entity=entity, change="missing")
        case Action.DELETE:
            along = f" with {len(operation.takes)} of its own" if operation.takes else ""
            yield FieldDifference(kind=kind, entity=entity + along, change="added")
        case Action.UPDATE | Action.OPEN:
            for change in operation.changes:
                yield FieldDifference(
                    kind=kind,
                    entity=entity,
                    change="changed",
                    field=change.field,
                    loaded=change.before,
                    desired=change.after,
                )
        case Action.ASIDE:
            """The update that follows tells what differs."""
