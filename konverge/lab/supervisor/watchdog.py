"""Ends every process of a lab after its supervisor has gone, however it went.

Run as a script with nothing but the standard library. Standard input is a pipe that the supervisor holds
open: its end means that the supervisor has ended. Processes are found by an environment variable, which
is inherited by all that a lab starts; a parent-death signal reaches children only, this reaches all.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

MARKER = "KONVERGE_LAB"
"""The environment variable: ``NAME/NONCE``."""
ROUNDS = 50
PAUSE = 0.02
"""Seconds between two looks; a process may fork while it is being ended."""


def find_marked(marker: str) -> list[int]:
    """Return the processes whose environment says that they belong to the lab, this one left out."""
    entry = f"{MARKER}={marker}".encode()
    own = os.getpid()
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return sorted(pid for pid in pids if pid != own and _carries(pid, entry))


def _carries(pid: int, entry: bytes) -> bool:
    try:
        return entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def sweep(marker: str) -> int:
    """Send SIGKILL to every process of the lab until none is left; return how many there were."""
    ended: set[int] = set()
    for _ in range(ROUNDS):
        found = find_marked(marker)
        if not found:
            break
        for pid in found:
            _end(pid, f"{MARKER}={marker}".encode())
        ended.update(found)
        time.sleep(PAUSE)
    return len(ended)


def _end(pid: int, entry: bytes) -> None:
    """Kill through a pidfd that is looked at again, so that a reused number is never hit."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _carries(pid, entry):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return
    finally:
        os.close(handle)


def main() -> int:
    """Wait for the end of standard input, then sweep."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        continue
    sweep(sys.argv[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
