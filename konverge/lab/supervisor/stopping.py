"""Ends a lab from outside its supervisor."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from pathlib import Path

from konverge.errors import NotFound
from konverge.lab.supervisor.cleaning import clean_up
from konverge.lab.supervisor.states import LabState, is_held, read_state

TERM_SECONDS = 20.0
"""How long a supervisor may take to end its components in order."""
KILL_SECONDS = 5.0


def stop_lab(home: Path, name: str) -> bool:
    """End a lab and remove what it leaves; False where it had been killed and only its remains were removed.

    Raises NotFound (LabNotRunning) where there is neither a lab nor remains of one.
    """
    place = home / "labs" / name
    state = read_state(place)
    if state is None:
        raise NotFound(f"No lab named {name} is running.", reason="LabNotRunning", hint="howto/lab.md#stop")
    running = is_held(place)
    if running:
        _end_supervisor(state)
    clean_up(place)
    return running


def _end_supervisor(state: LabState) -> None:
    # The held lock says that the noted process is the supervisor and not a later one of its number.
    try:
        handle = os.pidfd_open(state.pid)
    except ProcessLookupError:
        return
    try:
        for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], seconds)[0]:
                return
    finally:
        os.close(handle)
