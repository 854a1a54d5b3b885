"""The database that several nodes share: one SQLite file with the constraints that Kong's tables have.

Every write is one transaction that either holds all constraints or changes nothing; the changes are numbered, so
that a node learns what is new since it looked last. A process that is killed leaves whole transactions only.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

Entity = dict[str, Any]
T = TypeVar("T")

TABLES = """
CREATE TABLE IF NOT EXISTS entities (kind TEXT, id TEXT, data BLOB, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uniques (kind TEXT, field TEXT, value TEXT, id TEXT, PRIMARY KEY (kind, field, value))
  WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS uniques_by_id ON uniques (kind, id);
CREATE TABLE IF NOT EXISTS links (kind TEXT, id TEXT, field TEXT, target_kind TEXT, target_id TEXT,
  PRIMARY KEY (kind, id, field)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS links_by_target ON links (target_kind, target_id);
CREATE TABLE IF NOT EXISTS changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, id TEXT);
CREATE INDEX IF NOT EXISTS changes_by_entity ON changes (kind, id);
"""
PATIENCE = 20.0
"""Seconds that a writer waits for another one."""


@dataclass(frozen=True, slots=True)
class Change:
    """What became of an entity; None: it is gone."""

    kind: str
    id: str
    entity: Entity | None


class Transaction:
    """Reads and writes inside one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, kind: str, entity_id: str) -> Entity | None:
        """Return an entity."""
        row = self._connection.execute(
            "SELECT data FROM entities WHERE kind = ? AND id = ?", (kind, entity_id)
        ).fetchone()
        return orjson.loads(row[0]) if row is not None else None

    def find(self, kind: str, field: str, value: str) -> str | None:
        """Return the id of the entity that holds a unique value."""
        row = self._connection.execute(
            "SELECT id FROM uniques WHERE kind = ? AND field = ? AND value = ?", (kind, field, value)
        ).fetchone()
        return str(row[0]) if row is not None else None

    def children(self, kind: str, entity_id: str) -> list[tuple[str, str, str]]:
        """Return (kind, id, field) of what refers to an entity."""
        return self._connection.execute(
            "SELECT kind, id, field FROM links WHERE target_kind = ? AND target_id = ?", (kind, entity_id)
        ).fetchall()

    def put(
        self, kind: str, entity: Entity, uniques: Mapping[str, str], links: Mapping[str, tuple[str, str]]
    ) -> None:
        """Insert or replace an entity with its unique values and what it refers to."""
        entity_id = entity["id"]
        self._forget(kind, entity_id)
        self._connection.execute(
            "INSERT OR REPLACE INTO entities VALUES (?, ?, ?)", (kind, entity_id, orjson.dumps(entity))
        )
        self._connection.executemany(
            "INSERT INTO uniques VALUES (?, ?, ?, ?)",
            [(kind, field, value, entity_id) for field, value in uniques.items()],
        )
        self._connection.executemany(
            "INSERT INTO links VALUES (?, ?, ?, ?, ?)",
            [(kind, entity_id, field, *target) for field, target in links.items()],
        )
        self._note(kind, entity_id)

    def drop(self, kind: str, entity_id: str) -> None:
        """Remove an entity; what refers to it is the caller's affair."""
        self._forget(kind, entity_id)
        self._connection.execute("DELETE FROM entities WHERE kind = ? AND id = ?", (kind, entity_id))
        self._note(kind, entity_id)

    def _forget(self, kind: str, entity_id: str) -> None:
        self._connection.execute("DELETE FROM uniques WHERE kind = ? AND id = ?", (kind, entity_id))
        self._connection.execute("DELETE FROM links WHERE kind = ? AND id = ?", (kind, entity_id))

    def _note(self, kind: str, entity_id: str) -> None:
        # The last change of an entity is all that a follower needs: the table stays as small as the data.
        self._connection.execute("DELETE FROM changes WHERE kind = ? AND id = ?", (kind, entity_id))
        self._connection.execute("INSERT INTO changes (kind, id) VALUES (?, ?)", (kind, entity_id))


class Database:
    """One connection to the file; its methods block and are run in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            path, timeout=PATIENCE, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        # Nodes start at the same time, and SQLite does not wait for the lock that a change of the journal takes.
        with path.with_name(f"{path.name}.opening").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.executescript(TABLES)

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def read_changes(self, since: int) -> tuple[int, list[Change]]:
        """Return the number of the latest change and what has changed after ``since``."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT c.seq, c.kind, c.id, e.data FROM changes c LEFT JOIN entities e"
                " ON e.kind = c.kind AND e.id = c.id WHERE c.seq > ? ORDER BY c.seq",
                (since,),
            ).fetchall()
        found = [Change(kind, entity_id, orjson.loads(data) if data else None) for _, kind, entity_id, data in rows]
        return (rows[-1][0] if rows else since), found

    def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` in a transaction; nothing is written where it raises."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(Transaction(self._connection))
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
            return result
