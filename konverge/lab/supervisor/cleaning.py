"""Removes what a lab has left: processes, and the files that its components wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

from konverge.lab.supervisor.settings import LabSettings
from konverge.lab.supervisor.states import read_state
from konverge.lab.supervisor.watchdog import sweep

COMPONENT_DIRECTORIES = ("apiserver", "kubelet")
"""They hold keys and Secrets. The logs stay until the next start; nothing else is ever touched."""


def prepare_place(settings: LabSettings) -> None:
    """Make room for a new lab whose lock is held: end and remove what a killed one of the name has left."""
    clean_up(settings.place)
    remove_files(settings.files)
    shutil.rmtree(settings.files / "logs", ignore_errors=True)
    settings.files.mkdir(parents=True, exist_ok=True, mode=0o700)


def clean_up(place: Path) -> int:
    """End what a killed lab has left running and remove its state; return how many processes there were."""
    stale = read_state(place)
    if stale is None:
        return 0
    ended = sweep(stale.marker)
    remove_files(stale.directory)
    (place / "state.json").unlink(missing_ok=True)
    return ended


def remove_files(directory: Path) -> None:
    """Remove the components' own directories."""
    for name in COMPONENT_DIRECTORIES:
        shutil.rmtree(directory / name, ignore_errors=True)
