"""What all stages share: the snapshot, the settings, and the problems found so far."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from konverge.translate.ids import Identifiers
from konverge.translate.problems import Object, Problem
from konverge.translate.settings import Settings
from konverge.translate.store import Key, Scope, Store


class Working:
    """The common ground of the stages of one translator."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store()
        self.ids = Identifiers(settings.workspace, settings.on("FillIDs"))
        self._problems: dict[Hashable, tuple[Problem, ...]] = {}
        self._sorted: tuple[Problem, ...] | None = ()
        self._kinds: dict[str, set[Key]] = {}

    @property
    def objects(self) -> dict[Key, Object]:
        """The current objects."""
        return self.store.objects

    def put(self, key: Key, value: Object) -> None:
        """Add or replace an object."""
        self.store.put(key, value)
        self._kinds.setdefault(key[0], set()).add(key)

    def drop(self, key: Key) -> None:
        """Remove an object."""
        self.store.drop(key)
        self._kinds.get(key[0], set()).discard(key)

    def of_kind(self, kind: str) -> Iterator[Key]:
        """Return the identities of a kind, in no particular order."""
        return iter(self._kinds.get(kind, ()))

    def scope(self) -> Scope:
        """Return a fresh view for one rule."""
        return Scope(self.store, self.settings, self.ids)

    def note(self, node: Hashable, problems: Sequence[Problem]) -> None:
        """Keep the problems of a node, in place of those it had before."""
        if problems:
            self._problems[node] = tuple(problems)
            self._sorted = None
        elif self._problems.pop(node, None) is not None:
            self._sorted = None

    def problems(self) -> tuple[Problem, ...]:
        """Return all problems, sorted, without repetitions."""
        if self._sorted is None:
            self._sorted = tuple(sorted({problem for found in self._problems.values() for problem in found}))
        return self._sorted
