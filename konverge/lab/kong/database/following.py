"""How a node follows the database: entities by polling, its own writes at once, routers on a timer.

A real node learns of foreign writes every ``db_update_frequency`` and of its own at once; its balancers and caches
follow then. Routers and plugin iterators are rebuilt every ``worker_state_update_frequency``
(``kong/cluster_events``, ``kong/runloop/handler.lua``): so a change may route up to the sum of both later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from konverge.lab.kong.database.store import Change, Database, Transaction
from konverge.lab.kong.plugins.iterating import PluginTable
from konverge.lab.kong.router.table import Router
from konverge.lab.kong.state import Entities, Snapshot

if TYPE_CHECKING:
    from konverge.lab.kong.node import StandInKong

T = TypeVar("T")

EVENT_DELAY = 0.005
"""Seconds in which the node's own writes are gathered before its balancers follow, as worker events are."""


class Follower:
    """The database as one node sees it."""

    def __init__(self, node: StandInKong, database: Database) -> None:
        self._node = node
        self._database = database
        self._written = asyncio.Event()
        self._turn = asyncio.Lock()
        self.snapshot = Snapshot()
        """What the Admin API shows: always what the database holds."""

    def load(self) -> Snapshot:
        """Read everything; for the start of a node, which waits for it."""
        self._take(*self._database.read_changes(0))
        return self.snapshot

    async def refresh(self) -> Snapshot:
        """Read what is new."""
        async with self._turn:
            self._take(*await asyncio.to_thread(self._database.read_changes, self.snapshot.number))
        return self.snapshot

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run a write in a transaction; this node follows it at once. Raises what ``work`` raises."""
        result = await asyncio.to_thread(self._database.transact, work)
        await self.refresh()
        self._written.set()
        return result

    def _take(self, number: int, changes: Iterable[Change]) -> None:
        if number == self.snapshot.number:
            return
        entities: Entities = dict(self.snapshot.entities)
        copied: set[str] = set()
        for change in changes:
            if change.kind not in copied:
                entities[change.kind] = dict(entities.get(change.kind, {}))
                copied.add(change.kind)
            if change.entity is None:
                entities[change.kind].pop(change.id, None)
            else:
                entities[change.kind][change.id] = change.entity
        self.snapshot = Snapshot(entities, number=number)

    async def follow_own_writes(self) -> None:
        """Let the balancers of this node follow what was written through it; runs until cancelled."""
        while True:
            await self._written.wait()
            await asyncio.sleep(EVENT_DELAY)
            self._written.clear()
            self._node.follow(self.snapshot)

    async def poll(self, interval: float) -> None:
        """Look for foreign writes every ``interval`` seconds; runs until cancelled."""
        while True:
            await asyncio.sleep(interval)
            await self.refresh()
            self._node.follow(self.snapshot)

    async def rebuild(self, interval: float) -> None:
        """Rebuild router and plugins every ``interval`` seconds if anything changed; runs until cancelled."""
        while True:
            await asyncio.sleep(interval)
            snapshot = self._node.snapshot
            if snapshot is self._node.gateway.router.snapshot or self._node.faults.router_extra < 0:
                continue
            router, plugins = await asyncio.to_thread(_build, snapshot)
            await asyncio.sleep(self._node.faults.router_extra)
            self._node.gateway.switch(router, plugins)

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def _build(snapshot: Snapshot) -> tuple[Router, PluginTable]:
    return Router(snapshot), PluginTable.build(snapshot)
