"""The paths of a control plane's credentials, and how a secret one is written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Files:
    """The paths of all credentials under one directory."""

    directory: Path

    def path(self, name: str) -> Path:
        """Return the path of a file, e.g. ``ca.crt``."""
        return self.directory / name

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the administrator (group system:masters)."""
        return self.directory / "admin.kubeconfig"


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
