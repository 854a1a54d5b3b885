"""Which results were read from which keys of the snapshot."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from konverge.translate.store import Key

Node = TypeVar("Node", bound=Hashable)


class Dependencies(Generic[Node]):
    """Both directions: node -> keys it read, key -> nodes that read it."""

    def __init__(self) -> None:
        self.reads: dict[Node, set[Key]] = {}
        self.readers: dict[Key, set[Node]] = {}

    def record(self, node: Node, reads: set[Key]) -> None:
        """Note what a node has read, in place of what it read before."""
        before = self.reads.get(node)
        if before == reads:
            return
        if before is not None:
            self._forget(node, before - reads)
            fresh = reads - before
        else:
            fresh = reads
        readers = self.readers
        for key in fresh:
            found = readers.get(key)
            if found is None:
                readers[key] = {node}
            else:
                found.add(node)
        self.reads[node] = reads

    def forget(self, node: Node) -> None:
        """Drop a node."""
        reads = self.reads.pop(node, None)
        if reads is not None:
            self._forget(node, reads)

    def _forget(self, node: Node, keys: Iterable[Key]) -> None:
        for key in keys:
            found = self.readers[key]
            found.discard(node)
            if not found:
                del self.readers[key]

    def affected(self, touched: Iterable[Key]) -> set[Node]:
        """Return the nodes that read any of the keys."""
        readers = self.readers
        result: set[Node] = set()
        for key in touched:
            found = readers.get(key)
            if found:
                result |= found
        return result
