"""Processor time of this process and of its ended children, and of one that runs."""

from __future__ import annotations

import os
import resource
from pathlib import Path


def read_cpu() -> float:
    """Return the seconds so far, user and system together."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def read_cpu_of(pid: int) -> float:
    """Return the same of another process (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
