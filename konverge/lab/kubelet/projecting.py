"""Directories whose files change all at once, laid out as the kubelet does.

``..2026_01_02_03_04_05.123456/file`` holds the content, ``..data`` links to that directory, and ``file`` links to
``..data/file``: renaming a new ``..data`` over the old one switches every file in one step.
"""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from konverge.lab.kubelet.payloads import Payload

DATA = "..data"


class AtomicDirectory:
    """One projected volume on disk. Its methods block: call them in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: Payload | None = None

    def write(self, payload: Payload) -> bool:
        """Make the directory hold exactly ``payload``; return whether anything changed."""
        if payload == self._written:
            return False
        self.path.mkdir(parents=True, exist_ok=True)
        old = self._target()
        new = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.%f")
        _fill(self.path / new, payload)
        self._switch(new)
        self._link(payload)
        if old is not None and old != new:
            shutil.rmtree(self.path / old, ignore_errors=True)
        self._written = payload
        return True

    def _target(self) -> str | None:
        try:
            return os.readlink(self.path / DATA)
        except OSError:
            return None

    def _switch(self, new: str) -> None:
        temporary = self.path / "..data_tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(new)
        temporary.rename(self.path / DATA)

    def _link(self, payload: Payload) -> None:
        wanted = {path.split("/")[0] for path in payload}
        for name in wanted:
            link = self.path / name
            if not link.is_symlink():
                link.symlink_to(f"{DATA}/{name}")
        for entry in self.path.iterdir():
            if not entry.name.startswith("..") and entry.name not in wanted:
                entry.unlink()


def _fill(directory: Path, payload: Payload) -> None:
    directory.mkdir(mode=0o755)
    for path, (content, mode) in payload.items():
        target = directory / path
        if ".." in target.relative_to(directory).parts:
            raise ValueError(f"path {path!r} leaves its volume")
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, mode)
