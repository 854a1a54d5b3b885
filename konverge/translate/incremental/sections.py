"""One list of the document, kept sorted while entries come and go."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Sequence
from operator import attrgetter

from konverge.translate.entities import Entry

FEW = 256
"""Up to this many changes are placed one by one; more are sorted in, which is linear on a nearly sorted list."""

_key = attrgetter("key")


class Section:
    """Entries by owner, in order of their keys; ``descending`` lists are read from the end."""

    def __init__(self, descending: bool) -> None:
        self._descending = descending
        self._owned: dict[Hashable, Sequence[Entry]] = {}
        self._order: list[Entry] = []
        self._added: list[Entry] = []
        self._removed: list[Entry] = []
        self._snapshot: tuple[Entry, ...] = ()
        self._content: bytes | None = b""

    def replace(self, owner: Hashable, entries: Sequence[Entry]) -> None:
        """Put these entries in place of those that the owner had."""
        before = self._owned.get(owner, ())
        if entries:
            self._owned[owner] = entries
        else:
            self._owned.pop(owner, None)
        if not before:
            self._added += entries
            return
        kept = {id(entry) for entry in entries} & {id(entry) for entry in before}
        self._removed += [entry for entry in before if id(entry) not in kept]
        self._added += [entry for entry in entries if id(entry) not in kept]

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries in the order of the document."""
        if self._added or self._removed:
            self._settle()
            ordered = reversed(self._order) if self._descending else iter(self._order)
            self._snapshot = tuple(ordered)
            self._content = None
        return self._snapshot

    def _cancel(self) -> None:
        """Drop what was both put in and taken out since the last settling."""
        balance: dict[int, int] = {}
        for entry in self._added:
            balance[id(entry)] = balance.get(id(entry), 0) + 1
        for entry in self._removed:
            balance[id(entry)] = balance.get(id(entry), 0) - 1
        added = {id(entry): entry for entry in self._added if balance[id(entry)] > 0}
        removed = {id(entry): entry for entry in self._removed if balance[id(entry)] < 0}
        self._added, self._removed = list(added.values()), list(removed.values())

    def _settle(self) -> None:
        order = self._order
        if self._added and self._removed:
            self._cancel()
        if len(self._added) + len(self._removed) <= FEW:
            for entry in self._removed:
                self._take_out(entry)
            for entry in self._added:
                insort(order, entry, key=_key)
        else:
            gone = {id(entry) for entry in self._removed}
            if gone:
                order[:] = [entry for entry in order if id(entry) not in gone]
            order += self._added
            order.sort(key=_key)
        self._added, self._removed = [], []

    def _take_out(self, entry: Entry) -> None:
        order = self._order
        index = bisect_left(order, entry.key, key=_key)
        while index < len(order) and order[index] is not entry:
            index += 1
        del order[index]

    def content(self) -> bytes:
        """Return the canonical bytes of the list's members, joined by commas."""
        entries = self.entries()
        if self._content is None:
            self._content = b",".join([entry.content for entry in entries])
        return self._content
