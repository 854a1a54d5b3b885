"""A fleet that was deleted and made again under its name is taken up at once, whatever its generation."""

from __future__ import annotations

from typing import Any

from konverge.controller.queueing import Key
from konverge.controller.watching import Sources


class Queue:
    """Counts what wakes the controller, by key."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    def add(self, key: Key) -> None:
        self.keys.append(key)


def fleet(uid: str) -> dict[str, Any]:
    return {"metadata": {"name": "shop", "namespace": "ns", "uid": uid, "generation": 1, "resourceVersion": uid}}


def test_a_fleet_that_comes_back_wakes_us() -> None:
    queue: Any = Queue()
    kube: Any = object()
    found = Sources(kube, "shop", "ns", queue)
    for event, uid in (("ADDED", "1"), ("MODIFIED", "1"), ("DELETED", "1"), ("ADDED", "2")):
        found.fleets._take(event, fleet(uid))
    assert queue.keys == [*Key, *Key, *Key]


def test_a_fleet_that_was_exchanged_while_nobody_looked_wakes_us() -> None:
    queue: Any = Queue()
    kube: Any = object()
    found = Sources(kube, "shop", "ns", queue)
    found.fleets._take("ADDED", fleet("1"))
    found.fleets._take("MODIFIED", fleet("2"))
    assert queue.keys == [*Key, *Key]
