"""Puts a copy of a lab's kubeconfig where the user wants it."""

from __future__ import annotations

import os
from pathlib import Path

from konverge.errors import UsageError


def export_kubeconfig(source: Path, target: Path) -> None:
    """Copy the kubeconfig, readable by its owner only; a file that is not a lab's is never overwritten."""
    content = source.read_bytes()
    if target.exists() and not is_ours(target):
        raise kubeconfig_exists(target)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.parent.mkdir(parents=True, exist_ok=True)
    draft.touch(mode=0o600)
    draft.write_bytes(_note(content))
    draft.replace(target)


def kubeconfig_exists(target: Path) -> UsageError:
    """Return the error for a file that a lab must not overwrite."""
    return UsageError(
        f"{target} exists and is not a kubeconfig of a lab: choose another --kubeconfig.",
        reason="KubeconfigExists",
        hint="howto/lab.md#kubeconfig",
    )


def is_ours(path: Path) -> bool:
    """Tell whether a kubeconfig was written by a lab."""
    return path.read_bytes().startswith(_note(b""))


def _note(content: bytes) -> bytes:
    return b"# kubeconfig of a konverge lab: replaced by the next `konverge lab up`\n" + content
