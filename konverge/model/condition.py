"""Outcomes and conditions: the one triple of reason, message and hint that is shown everywhere."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from konverge.model.base import Value


class Outcome(Value):
    """What happened: a stable CamelCase reason, one sentence, and a page of the docs."""

    reason: str
    message: str = ""
    hint: str = ""


class Condition(Value):
    """A Kubernetes condition (KEP-1623); ``last_transition_time`` moves only when the status changes."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    hint: str = Field(default="", description="Page of the documentation that says what to do.")
    last_transition_time: datetime
    observed_generation: int | None = None


def set_condition(
    conditions: tuple[Condition, ...],
    kind: str,
    holds: bool | None,
    outcome: Outcome,
    now: datetime,
) -> tuple[Condition, ...]:
    """Return the conditions with one of them set; None means Unknown."""
    status: Literal["True", "False", "Unknown"] = "Unknown" if holds is None else "True" if holds else "False"
    before = next((c for c in conditions if c.type == kind), None)
    since = before.last_transition_time if before and before.status == status else now
    fresh = Condition(
        type=kind,
        status=status,
        reason=outcome.reason,
        message=outcome.message,
        hint=outcome.hint,
        last_transition_time=since,
    )
    return (*(c for c in conditions if c.type != kind), fresh)


def find_condition(conditions: tuple[Condition, ...], kind: str) -> Condition | None:
    """Return the condition of a type."""
    return next((c for c in conditions if c.type == kind), None)


class ObjectRef(Value):
    """Names one Kubernetes object."""

    kind: str
    name: str
    namespace: str = ""
    uid: str = Field(default="", exclude_if=lambda uid: not uid)

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind}//{self.name}"
