"""Starts a supervisor that outlives the command, and follows it until the lab is ready."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import konverge.errors as tree
from konverge.errors import DOCS, CheckRefused, KonvergeError, NotFound, Unavailable
from konverge.lab.supervisor.settings import LabSettings
from konverge.lab.supervisor.states import LabState
from konverge.lab.supervisor.stopping import stop_lab
from konverge.lab.supervisor.supervising import Report

REFUSED = 3
"""Exit code of konverge.lab.namespaces where the kernel allows no private network."""


def start_detached(settings: LabSettings, report: Report) -> LabState:
    """Start a lab in the background and return its state once it is ready.

    Raises what the supervisor raised; Unavailable (SupervisorEnded) where it ended without a word.
    """
    reader, writer = os.pipe()
    log = settings.place / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        words = [*supervisor_command(settings), "--progress-fd", str(writer), "--detach"]
        starter = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(writer,),
            start_new_session=True,
        )
    os.close(writer)
    # The starter forks once more and ends: the supervisor is nobody's child and has no terminal.
    code = starter.wait()
    with os.fdopen(reader, "rb") as lines:
        try:
            return _follow(lines, report, log, refused=code == REFUSED)
        except KeyboardInterrupt:
            # Nobody would come back for a lab whose start was given up.
            with contextlib.suppress(NotFound):
                stop_lab(settings.home, settings.name)
            raise


def supervisor_command(settings: LabSettings) -> list[str]:
    """Return the command line of a supervisor; with a real control plane inside a network of its own."""
    words = [sys.executable, "-m", "konverge.lab.supervisor", "--settings", settings.model_dump_json()]
    if settings.control_plane == "real":
        return [sys.executable, "-m", "konverge.lab.namespaces", "--", *words]
    return words


def _follow(lines: Iterator[bytes], report: Report, log: Path, *, refused: bool = False) -> LabState:
    for line in lines:
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise rebuild(message)
        if "ready" in message:
            return LabState.model_validate(message["ready"])
        report(message["what"], message["how"])
    lines_of_log = log.read_text(errors="replace").strip().splitlines()
    tail = lines_of_log[-1] if lines_of_log else ""
    if refused:
        raise CheckRefused(tail, reason="NoPrivateNetwork", hint="howto/lab.md#a-real-control-plane")
    raise Unavailable(
        f"The lab's supervisor ended before the lab was ready{': ' + tail if tail else ''} (log: {log})",
        reason="SupervisorEnded",
        hint="howto/lab.md#when-it-does-not-start",
    )


def rebuild(message: dict[str, Any]) -> KonvergeError:
    """Return the error of another process as the same type, so that the exit code is the same."""
    triple, kind = message["error"], getattr(tree, str(message.get("type")), KonvergeError)
    known = kind if isinstance(kind, type) and issubclass(kind, KonvergeError) else KonvergeError
    return known(triple["message"], reason=triple["reason"], hint=triple["hint"].removeprefix(DOCS))


def send(handle: int, message: dict[str, Any]) -> None:
    """Write one line to the waiting command; nothing where it has gone."""
    try:
        os.write(handle, json.dumps(message).encode() + b"\n")
    except OSError:
        return
