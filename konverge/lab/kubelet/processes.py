"""Processes of containers: how they are started, signalled and awaited.

Every process leads a session of its own; whatever it starts and leaves behind is found by that session and killed
with it, as a container's processes end with its first one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from konverge.errors import Unavailable
from konverge.lab.kubelet.images import Program
from konverge.lab.pod import die_with_parent


class LaunchFailed(Unavailable):
    """The process could not be started at all."""

    reason = "StartError"
    hint = "explanation/lab.md#kubelet"


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start: a program with arguments, its whole environment and its working directory."""

    program: Program
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: str
    tty: bool = False


class Process:
    """A started process; ``returncode`` is None while it runs and negative for a signal."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.swept = False
        """Whether nothing of its session can be left, so that looking again is a waste."""
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        """Return the exit code once the process has ended."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def finish(self, code: int) -> None:
        """Note the end; called by the launcher."""
        if self.returncode is None:
            self.returncode = code
            self._ended.set()

    def signal(self, number: int) -> None:
        """Signal the first process only, as a container runtime does."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process, everything below it and everything of its session."""
        if not self.swept:
            kill_sessions([self.pid])
            self.signal(signal.SIGKILL)
            self.swept = self.returncode is not None


def kill_all(processes: Iterable[Process]) -> None:
    """Kill many processes and their sessions with one look at the process table."""
    found = list(processes)
    kill_sessions([process.pid for process in found if not process.swept])
    for process in found:
        process.swept = True


def exit_code(returncode: int) -> int:
    """Return a container's exit code: 128 plus the number of the signal that ended it."""
    return 128 - returncode if returncode < 0 else returncode


def kill_sessions(leaders: Iterable[int]) -> list[int]:
    """Kill every process of the sessions and below their leaders; return the ids of those that were there.

    Looks again until nobody new is found: a process may fork between the look and the kill.
    """
    leading, killed = set(leaders), set[int]()
    while leading and (found := _members(leading) - killed - {os.getpid()}):
        # Leaders first: a shell that lost its child to us would end as if nothing had happened.
        for pid in sorted(found, key=lambda pid: pid not in leading):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= found
    return sorted(killed)


def _members(leaders: set[int]) -> set[int]:
    table = _table()
    below = {pid for leader in leaders for pid in _below(leader, table)}
    return {pid for pid, row in table.items() if row.state != "Z" and (row.session in leaders or pid in below)}


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process as the kernel lists it."""

    parent: int
    session: int
    state: str


def _table() -> dict[int, ProcessRow]:
    """Return all processes by id; {} without /proc, where only process groups are known."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return {}
    rows = ((int(name), stat_fields(int(name))) for name in names if name.isdigit())
    return {pid: ProcessRow(int(row[1]), int(row[3]), row[0]) for pid, row in rows if row}


def _below(ancestor: int, table: Mapping[int, ProcessRow]) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, row in table.items():
        children.setdefault(row.parent, []).append(pid)
    found, waiting = [], [ancestor]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def descendants(ancestor: int) -> list[int]:
    """Return the ids of all processes below ``ancestor``, zombies excepted."""
    table = _table()
    return [pid for pid in _below(ancestor, table) if table[pid].state != "Z"]


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent, group, session ...; [] when gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


class Launcher(Protocol):
    """Starts processes; the caller keeps and closes its own copies of the descriptors."""

    async def start(self, launch: Launch, stdin: int, stdout: int, stderr: int) -> Process:
        """Start a process; LaunchFailed where the machine refuses."""

    async def close(self) -> None:
        """Kill what still runs."""


class DirectLauncher:
    """Starts every process as a new interpreter or program: slow (some 200 ms for Python) but without state."""

    def __init__(self) -> None:
        self._running: dict[int, Process] = {}
        self._waits: set[asyncio.Task[None]] = set()

    async def start(self, launch: Launch, stdin: int, stdout: int, stderr: int) -> Process:
        """Start a process; a missing program ends with 127 as under a shell."""
        parent = os.getpid()
        try:
            child = await asyncio.create_subprocess_exec(
                *command_line(launch),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=dict(launch.env),
                cwd=launch.cwd,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent),
            )
        except OSError as error:
            raise LaunchFailed(f"Cannot start {launch.argv[:1]}: {error}") from error
        process = Process(child.pid)
        self._running[child.pid] = process
        task = asyncio.create_task(self._watch(child, process))
        self._waits.add(task)
        task.add_done_callback(self._waits.discard)
        return process

    async def _watch(self, child: asyncio.subprocess.Process, process: Process) -> None:
        code = await child.wait()
        self._running.pop(process.pid, None)
        process.finish(code)

    async def close(self) -> None:
        """Kill what still runs."""
        for process in list(self._running.values()):
            process.kill()
        await asyncio.gather(*self._waits, return_exceptions=True)


def command_line(launch: Launch) -> list[str]:
    """Return the arguments with which a new process runs a launch; host commands go through a tiny launcher."""
    program = launch.program
    if program.function:
        code = f"import sys; sys.argv[0] = {program.module.split('.')[0]!r}; "
        code += f"from {program.module} import {program.function} as run; run()"
        return [sys.executable, "-c", code, *launch.argv]
    if program.module:
        return [sys.executable, "-m", program.module, *launch.argv]
    if launch.tty:
        code = "import os, sys; from konverge.lab.kubelet.zygote import execute, take_terminal; "
        code += "take_terminal(); execute(sys.argv[1:], os.environ)"
        return [sys.executable, "-c", code, *launch.argv]
    return ["env", "--", *launch.argv]  # answers 127 or 126 for a program that is missing or no program
