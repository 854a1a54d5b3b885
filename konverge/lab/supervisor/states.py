"""What is noted on disk about a lab, and how anybody can tell whether it runs.

The supervisor holds a lock on ``lock`` as long as it lives; ``state.json`` says what belongs to it. A state
without a held lock is what a killed lab has left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from konverge.errors import CheckRefused, NotFound

Phase = Literal["starting", "ready", "stopping"]


class ComponentState(BaseModel):
    """One process of a lab."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    restarts: int
    ready: bool
    log: Path


class LabState(BaseModel):
    """The state of a lab as its supervisor writes it down."""

    model_config = ConfigDict(frozen=True)

    name: str
    nonce: str
    """Makes the environment marker unique: ``name/nonce``."""
    pid: int
    """The supervisor."""
    started: float
    """Seconds since the epoch."""
    network: int
    private: bool
    """Whether it lives in a network namespace of its own."""
    control_plane: str
    directory: Path
    kubeconfig: Path
    server: str
    phase: Phase = "starting"
    components: tuple[ComponentState, ...] = ()

    @property
    def marker(self) -> str:
        """The value of the environment variable that every process of the lab carries."""
        return f"{self.name}/{self.nonce}"


def write_state(place: Path, state: LabState) -> None:
    """Write the state so that a reader sees the old one or the new one, never half of it."""
    draft = place / "state.json.new"
    draft.write_text(state.model_dump_json(indent=2))
    draft.replace(place / "state.json")


def read_state(place: Path) -> LabState | None:
    """Read a state; None where there is none that can be read."""
    try:
        return LabState.model_validate_json((place / "state.json").read_bytes())
    except (OSError, ValidationError):
        return None


def is_held(place: Path) -> bool:
    """Tell whether a living supervisor holds the lock."""
    try:
        handle = os.open(place / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


@contextlib.contextmanager
def holding(place: Path, name: str) -> Iterator[None]:
    """Hold the lab's lock; CheckRefused (LabNameInUse) where another supervisor does."""
    place.mkdir(parents=True, exist_ok=True)
    handle = os.open(place / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise name_in_use(name) from None
    try:
        yield
    finally:
        os.close(handle)


def name_in_use(name: str) -> CheckRefused:
    """Return the error for a lab that runs already."""
    return CheckRefused(
        f"A lab named {name} is running: end it with `konverge lab down --name {name}` or choose another --name.",
        reason="LabNameInUse",
        hint="howto/lab.md#names",
    )


def require_running(home: Path, name: str) -> LabState:
    """Return the state of a running lab; NotFound (LabNotRunning) where it does not run."""
    place = home / "labs" / name
    state = read_state(place)
    if state is None or not is_held(place):
        raise NotFound(
            f"No lab named {name} is running: start one with `konverge lab up --name {name}`.",
            reason="LabNotRunning",
            hint="howto/lab.md#start",
        )
    return state


def list_states(home: Path) -> list[tuple[LabState, bool]]:
    """Return every noted lab with whether it runs, by name."""
    labs = home / "labs"
    places = sorted(labs.iterdir()) if labs.is_dir() else []
    return [(state, is_held(place)) for place in places if (state := read_state(place))]
