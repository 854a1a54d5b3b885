"""Enters the network of a lab that has one of its own (``--control-plane real``)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from konverge.errors import CheckRefused
from konverge.lab.supervisor.states import LabState

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
"""``sched.h``; os.setns arrives in Python 3.12."""


def enter_network(state: LabState) -> None:
    """Move this process, which must have one thread only, into the lab's network; nothing where it has none."""
    if not state.private:
        return
    for kind, flag in (("user", CLONE_NEWUSER), ("net", CLONE_NEWNET)):
        other = Path(f"/proc/{state.pid}/ns/{kind}")
        try:
            if other.stat().st_ino != Path(f"/proc/self/ns/{kind}").stat().st_ino:
                _join(other, flag)
        except OSError as error:
            raise CheckRefused(
                f"Cannot enter the network of lab {state.name}: {error.strerror}",
                reason="NoLabNetwork",
                hint="howto/lab.md#a-real-control-plane",
            ) from error


def _join(namespace: Path, flag: int) -> None:
    handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, flag) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(handle)
