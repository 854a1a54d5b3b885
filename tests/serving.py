"""The lab's API server as a process, for as long as a block lasts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ApiServer:
    """A running stand-in: where its files are, and how it is reached."""

    directory: Path
    kubeconfig: Path
    pid: int


@contextmanager
def serve_api(directory: Path) -> Iterator[ApiServer]:
    """Run an API server on a port of its own, with nothing installed; it is gone at the end of the block."""
    command = [sys.executable, "-m", "konverge.lab.apiserver", "--listen", "127.0.0.1:0", "--dir", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            yield ApiServer(directory, Path(told["kubeconfig"]), process.pid)
        finally:
            process.terminate()
            process.wait(10)
