"""What a kind does differently from plain storage; the base class does nothing special."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from konverge.lab.apiserver.statuses import Cause, immutable
from konverge.lab.apiserver.store import Object

if TYPE_CHECKING:
    from konverge.lab.apiserver.state import State


class Rules:
    """The steps of a write that a kind may refine, in the order in which they run."""

    keeps_status = False
    """Whether a status given at creation is stored."""
    status_writes_labels = False
    """Whether a write to the status may change labels and annotations too."""

    def prepare_new(self, state: State, obj: Object) -> None:
        """Fill what the server decides at creation."""

    def prepare_change(self, state: State, obj: Object, old: Object, subresource: str) -> None:
        """Carry over what a writer may leave out."""

    def default(self, obj: Object) -> None:
        """Fill fields that were left out with their defaults."""

    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        """Return what is wrong; ``old`` is None at creation."""
        del state, obj, old
        return []

    def commit(self, state: State, obj: Object, old: Object | None) -> None:
        """Take note of numbers and addresses just before the object is stored."""


def put_defaults(obj: Object, **values: Any) -> None:
    """Set fields that are absent."""
    for key, value in values.items():
        if obj.get(key) is None:
            obj[key] = value


def check_unchanged(field: str, new: Any, old: Any) -> list[Cause]:
    """Return the complaint about a field that may not change."""
    return [] if new == old else [immutable(field, new)]
