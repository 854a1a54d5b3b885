"""A control plane as tests use it: kubectl against it, and the program that runs one."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

POD_ADDRESS = "10.244.0.1"


@dataclass(frozen=True)
class Plane:
    """A running control plane."""

    kubeconfig: Path
    directory: Path
    server: str

    def kubectl(self, *arguments: str, timeout: float = 60, stdin: str | None = None) -> str:
        """Run kubectl and return what it printed; fails with its complaint."""
        done = self.try_kubectl(*arguments, timeout=timeout, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def try_kubectl(
        self, *arguments: str, timeout: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl and return the finished process."""
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, input=stdin)


def in_private_network() -> bool:
    """Whether Pod addresses can be bound here."""
    with socket.socket() as probe:
        try:
            probe.bind((POD_ADDRESS, 0))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def run_plane(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    """Run ``python -m konverge.lab.realplane`` and give the process and its ready line."""
    command = [sys.executable, "-m", "konverge.lab.realplane", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "the control plane ended before it was ready"
            yield process, json.loads(line)
        finally:
            process.terminate()
            process.wait(timeout=60)
