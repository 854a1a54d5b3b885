"""Files that tell a restarted kubelet which processes the one before it has left behind."""

from __future__ import annotations

import os
from pathlib import Path

from konverge.lab.kubelet.processes import kill_sessions, stat_fields

START_TIME = 19
"""Index of ``starttime`` in /proc/PID/stat after the name (field 22 of proc(5))."""


def remember(directory: Path, container_id: str, pid: int) -> None:
    """Write down a container's first process with its start time, which tells it from a later one of that id."""
    directory.mkdir(parents=True, exist_ok=True)
    fields = stat_fields(pid)
    (directory / container_id).write_text(f"{pid} {fields[START_TIME] if fields else ''}\n")


def forget(directory: Path, container_id: str) -> None:
    """Remove a container's file."""
    (directory / container_id).unlink(missing_ok=True)


def kill_orphans(directory: Path) -> list[int]:
    """Kill every session that a file names and that is still the same; return the ids of killed processes."""
    leaders = []
    for path in directory.glob("*") if directory.is_dir() else ():
        pid, _, started = path.read_text().strip().partition(" ")
        fields = stat_fields(int(pid)) if pid.isdigit() else []
        # A session without its leader keeps the id: no new process can get it before the session is empty.
        if pid.isdigit() and (not fields or fields[START_TIME] == started):
            leaders.append(int(pid))
        path.unlink(missing_ok=True)
    return kill_sessions([leader for leader in leaders if leader != os.getpid()]) if leaders else []
