"""What a node serves: a snapshot of entities with its hash, and where it is kept.

A snapshot never changes; loading a configuration replaces it. So a request that was routed by the old one finishes
with the old one.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from konverge.lab.kong.schema.registry import Registry

Entity = dict[str, Any]
Entities = dict[str, dict[str, Entity]]

EMPTY_HASH = "0" * 32
"""The hash of a node without entities (Kong's ``DECLARATIVE_EMPTY_CONFIG_HASH``)."""


ENTITY_SIZE = 2000
EMPTY_SIZE = 64 * 1024
"""Bytes of LMDB per entity and without any: 450,560 for 200 entities, 3,956,736 for 2,000 on a real Kong 3.9.3."""


class StoreFull(Exception):
    """The configuration does not fit (LMDB's MDB_MAP_FULL); what was there before stays."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Entities as they are served, and their hash."""

    entities: Entities = field(default_factory=dict)
    hash: str = EMPTY_HASH
    number: int = 0
    """How many configurations this process has loaded before."""

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing in it."""
        return not any(self.entities.values())

    def list(self, kind: str) -> list[Entity]:
        """Return the entities of a kind, sorted by id."""
        found = self.entities.get(kind, {})
        return [found[key] for key in sorted(found)]

    def find(self, kind: str, key: str, registry: Registry) -> Entity | None:
        """Return an entity by id or by its endpoint key."""
        entities = self.entities.get(kind, {})
        found = entities.get(key)
        if found is not None:
            return found
        name = registry.entities[kind].endpoint_key
        if not name:
            return None
        return next((entity for entity in entities.values() if entity.get(name) == key), None)


def hash_text(text: bytes) -> str:
    """Return the hash of a configuration that came as text."""
    return hashlib.md5(text, usedforsecurity=False).hexdigest()


def hash_entities(entities: Entities, salt: str) -> str:
    """Return the hash of a configuration that came as a JSON object.

    Kong hashes the entities after filling in timestamps, in the order of its hash tables: other on every node (hence
    ``salt``) and in every second, and never the md5 of the body.
    """
    return hash_text(orjson.dumps(entities, option=orjson.OPT_SORT_KEYS) + salt.encode())


def estimate_size(entities: Entities, encoded: int) -> int:
    """Return the bytes that entities take in LMDB, given the length of their JSON."""
    return EMPTY_SIZE + max(encoded, ENTITY_SIZE * sum(len(found) for found in entities.values()))


class Storage(Protocol):
    """Where a node keeps its configuration over a restart."""

    def load(self) -> Snapshot | None:
        """Return what was stored; None where there is nothing."""

    def save(self, snapshot: Snapshot) -> int:
        """Store a snapshot whole or not at all; return its size in bytes. Raises StoreFull."""


class FileStorage:
    """DB-less: one file under PREFIX/dbless.lmdb, replaced atomically."""

    def __init__(self, prefix: Path, capacity: int) -> None:
        self._directory = prefix / "dbless.lmdb"
        self._path = self._directory / "data.json"
        self._capacity = capacity

    def load(self) -> Snapshot | None:
        """Return what was stored; None where there is nothing or nothing legible."""
        try:
            data = orjson.loads(self._path.read_bytes())
            return Snapshot(entities=data["entities"], hash=data["hash"])
        except (OSError, ValueError, KeyError):
            return None

    def save(self, snapshot: Snapshot) -> int:
        """Write a new file next to the old one and rename it. Raises StoreFull."""
        data = orjson.dumps({"hash": snapshot.hash, "entities": snapshot.entities})
        if estimate_size(snapshot.entities, len(data)) > self._capacity:
            raise StoreFull
        self._directory.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(f".{os.getpid()}.tmp")
        fresh.write_bytes(data)
        fresh.replace(self._path)
        return len(data)


class MemoryStorage:
    """Keeps nothing over a restart; for stand-ins without a prefix."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._snapshot: Snapshot | None = None

    def load(self) -> Snapshot | None:
        """Return the last snapshot."""
        return self._snapshot

    def save(self, snapshot: Snapshot) -> int:
        """Keep a snapshot. Raises StoreFull."""
        size = len(orjson.dumps(snapshot.entities))
        if estimate_size(snapshot.entities, size) > self._capacity:
            raise StoreFull
        self._snapshot = snapshot
        return size
