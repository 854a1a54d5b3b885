"""Operations on entities, as values: what is sent, what was there, and what may be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from konverge.model.condition import ObjectRef

Entity = Mapping[str, Any]


class Action(StrEnum):
    """What an operation does."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    OPEN = "open"
    """Gives a route that was created closed the conditions that it is to have: its plugins are there now."""
    ASIDE = "set-aside"
    """Gives up a unique value that another entity is about to take."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field that changes; both values as they may be shown."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. ``body`` is what is sent, ``former`` the entity as it is stored; neither is ever shown."""

    action: Action
    kind: str
    id: str
    label: str
    """The entity in words, e.g. ``route shop.web.00``."""
    body: Entity = field(default_factory=dict, repr=False)
    former: Entity = field(default_factory=dict, repr=False)
    changes: tuple[Change, ...] = ()
    takes: tuple[tuple[str, Entity], ...] = field(default=(), repr=False)
    """(kind, entity) of what Kong deletes along with it, owners before what is theirs."""
    reference: ObjectRef | None = None
    """The Kubernetes object that the entity comes from."""

    def __str__(self) -> str:
        return f"{self.action.value} {self.label}"

    def to_json(self) -> dict[str, Any]:
        """Return the operation as a JSON object without anything secret."""
        shown: dict[str, Any] = {"action": self.action.value, "kind": self.kind, "entity": self.label, "id": self.id}
        if self.reference is not None:
            shown["object"] = str(self.reference)
        if self.changes:
            shown["changes"] = [{"field": c.field, "before": c.before, "after": c.after} for c in self.changes]
        if self.takes:
            shown["takesAlong"] = len(self.takes)
        return shown


Stage = tuple[Operation, ...]
"""Operations that may run at the same time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The way from what a database holds to what it should hold.

    ``prepare`` comes first: afterwards everything new works and nothing old is missing. ``remove`` follows when every
    proxy routes the new configuration.
    """

    prepare: tuple[Stage, ...] = ()
    remove: tuple[Stage, ...] = ()
    kept: tuple[tuple[Operation, str], ...] = ()
    """Deletions that are left out, and why: something that is not ours would go along."""
    skipped: tuple[str, ...] = ()
    """Kinds of the configuration that are not written to a database."""
    stored_hash: str = ""
    """Hash of the revision that the database says it holds."""

    @property
    def operations(self) -> tuple[Operation, ...]:
        """All operations in their order."""
        return tuple(operation for stage in (*self.prepare, *self.remove) for operation in stage)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.operations

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON object without anything secret."""
        return {
            "changes": not self.empty,
            "operations": [operation.to_json() for operation in self.operations],
            "kept": [{"entity": operation.label, "reason": reason} for operation, reason in self.kept],
            "skipped": list(self.skipped),
            "storedHash": self.stored_hash,
        }
