"""State of the proxy that outlives a configuration: rate-limit windows; and indexes that belong to one."""

from __future__ import annotations

from typing import Any

from konverge.lab.kong.state import Snapshot

Window = tuple[str, str, str, int]
MAX_WINDOWS = 100_000


class Counters:
    """Counters in this process (Kong: shared dictionary, policy ``local``)."""

    def __init__(self) -> None:
        self.windows: dict[Window, int] = {}
        self._indexes: dict[tuple[int, str], dict[str, dict[str, Any]]] = {}
        self._number = -1

    def count(self, window: Window, now: float) -> None:
        """Count one request in a window; old windows go once there are very many."""
        self.windows[window] = self.windows.get(window, 0) + 1
        if len(self.windows) > MAX_WINDOWS:
            # A year is the longest window, but nobody waits a year in a lab.
            self.windows = {key: used for key, used in self.windows.items() if key[3] > now - 3600}

    def index(self, snapshot: Snapshot, kind: str, name: str) -> dict[str, dict[str, Any]]:
        """Return the entities of a snapshot by one of their fields."""
        if snapshot.number != self._number:
            self._indexes.clear()
            self._number = snapshot.number
        key = (snapshot.number, kind)
        found = self._indexes.get(key)
        if found is None:
            entities = snapshot.entities.get(kind, {}).values()
            found = self._indexes[key] = {entity[name]: entity for entity in entities if entity.get(name)}
        return found
