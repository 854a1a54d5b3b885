"""The store on disk: a snapshot and a log of every commit since, so that nothing acknowledged is lost.

``store.json`` holds the version and all objects, one per line; ``store.log`` one line per change. Writes go to the
page cache without fsync: a killed process loses nothing, a killed machine may.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import orjson

from konverge.lab.apiserver.store import Event, Store

MAX_LOG = 32 * 1024 * 1024
"""Bytes of log after which a new snapshot is written."""


class Journal:
    """Restores a store and follows it."""

    def __init__(self, directory: Path, store: Store) -> None:
        self._snapshot = directory / "store.json"
        self._log = directory / "store.log"
        self._store = store
        self._file: BinaryIO | None = None
        self._size = 0

    def restore(self) -> bool:
        """Put back what was stored; returns whether there was anything."""
        found = self._read_snapshot() | self._read_log()
        if found:
            self._store.compact()
        return found

    def _read_snapshot(self) -> bool:
        if not self._snapshot.exists():
            return False
        head, *lines = self._snapshot.read_bytes().splitlines()
        self._store.version = orjson.loads(head)["version"]
        for line in lines:
            storage, obj = orjson.loads(line)
            self._store.restore(storage, obj)
        return True

    def _read_log(self) -> bool:
        if not self._log.exists():
            return False
        for line in self._log.read_bytes().splitlines():
            try:
                kind, version, storage, obj = orjson.loads(line)
            except (ValueError, TypeError):
                break  # the last line of a process that was killed while it wrote
            if version <= self._store.version:
                continue
            self._store.version = version
            if kind != "DELETED":
                self._store.restore(storage, obj)
                continue
            namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
            spaces = self._store.collection(storage).spaces
            spaces.get(namespace, {}).pop(name, None)
            if not spaces.get(namespace):
                spaces.pop(namespace, None)
        return True

    def start(self) -> None:
        """Write a snapshot and follow the store from here on."""
        self.write_snapshot()
        self._store.listeners.append(self._append)

    def _append(self, storage: str, event: Event) -> None:
        obj = event.entry.object if event.type != "DELETED" else _keep_identity(event)
        line = orjson.dumps([event.type, event.version, storage, obj]) + b"\n"
        if self._file is None:
            return
        self._file.write(line)
        self._size += len(line)
        if self._size > MAX_LOG:
            self.write_snapshot()

    def write_snapshot(self) -> None:
        """Write all objects and start a new log; a crash in between leaves the older pair or both."""
        lines = [orjson.dumps({"version": self._store.version})]
        for collection in self._store:
            lines += [orjson.dumps([collection.storage, entry.object]) for entry in collection.entries()]
        temporary = self._snapshot.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"\n".join(lines) + b"\n")
        os.replace(temporary, self._snapshot)
        self.close()
        log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = os.fdopen(log, "wb", buffering=0)
        self._size = 0

    def close(self) -> None:
        """Close the log."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _keep_identity(event: Event) -> dict[str, object]:
    namespace, name = event.entry.key
    return {"metadata": {"namespace": namespace, "name": name}}
