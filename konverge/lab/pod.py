"""What a process needs to know to behave as a container of a lab pod.

A pod of the lab has two addresses: the pod IP, and a *pod loopback* that plays 127.0.0.1 inside the pod, so
that many pods can listen on "localhost:8444" on one machine. Mounts are host directories that stand for
container paths. Without the variables set by the lab's kubelet, everything is taken literally.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

POD_IP = "KONVERGE_LAB_POD_IP"
POD_LOOPBACK = "KONVERGE_LAB_POD_LOOPBACK"
POD_MOUNTS = "KONVERGE_LAB_MOUNTS"
POD_NAME = "KONVERGE_LAB_POD_NAME"
POD_NAMESPACE = "KONVERGE_LAB_POD_NAMESPACE"

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})
ANY_NAMES = frozenset({"0.0.0.0", "::", "[::]", "*", ""})  # noqa: S104 - compared with, not bound to
PR_SET_PDEATHSIG = 1
"""``prctl(2)``: the signal sent to this process when its parent dies."""


@dataclass(frozen=True, slots=True)
class PodEnvironment:
    """Addresses and mounts of the pod that a process runs in; empty outside a pod."""

    ip: str = ""
    loopback: str = ""
    name: str = ""
    namespace: str = ""
    mounts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> PodEnvironment:
        """Read the variables that the kubelet of the lab sets."""
        env = os.environ if environ is None else environ
        return cls(
            ip=env.get(POD_IP, ""),
            loopback=env.get(POD_LOOPBACK, ""),
            name=env.get(POD_NAME, ""),
            namespace=env.get(POD_NAMESPACE, ""),
            mounts=json.loads(env.get(POD_MOUNTS) or "{}"),
        )

    def resolve_hosts(self, host: str) -> list[str]:
        """Return the addresses to bind for a listen host, the pod IP first."""
        if not self.ip:
            return [host]
        if host in ANY_NAMES:
            return [self.ip, self.loopback]
        return [self.loopback] if host in LOOPBACK_NAMES else [host]

    def resolve_target(self, host: str) -> str:
        """Return the address to dial for a host name as seen from inside the pod."""
        return self.loopback if self.loopback and host in LOOPBACK_NAMES else host

    def resolve_path(self, path: str | Path) -> Path:
        """Return the host path of a container path: the longest matching mount wins."""
        text = str(path)
        for mount in sorted(self.mounts, key=len, reverse=True):
            prefix = mount.rstrip("/")
            if text in (prefix, mount) or text.startswith(prefix + "/"):
                return Path(self.mounts[mount] + text[len(prefix) :])
        return Path(text)


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel for SIGKILL when the parent dies; exits at once where ``parent`` is gone already.

    On systems without prctl this does nothing: there the lab relies on process groups.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def raise_file_limit() -> None:
    """Allow as many open files as the system lets this process have: every connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
