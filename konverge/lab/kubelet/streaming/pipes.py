"""The one shape that exec and port-forward work on, whatever protocol carries the bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
"""Channel numbers of the WebSocket protocols; the SPDY ``streamType`` has the names below in the same order."""
STREAM_TYPES = ("stdin", "stdout", "stderr", "error", "resize")


class Pipe(Protocol):
    """Bytes in two directions; a WebSocket channel or a SPDY stream."""

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end."""

    async def write(self, data: bytes) -> None:
        """Send bytes; ConnectionResetError when the peer is gone."""

    async def finish(self) -> None:
        """Say that no more bytes follow."""


@dataclass(frozen=True, slots=True)
class ExecPipes:
    """The streams of one exec or attach; those that were not asked for are None."""

    error: Pipe
    stdin: Pipe | None = None
    stdout: Pipe | None = None
    stderr: Pipe | None = None
    resize: Pipe | None = None
    structured: bool = True
    """Whether the outcome is a Status document (v4 and later) or plain text."""


@dataclass(frozen=True, slots=True)
class ExecOptions:
    """What a client asked for."""

    command: tuple[str, ...]
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    def streams(self) -> list[int]:
        """Return the channels that the client opens."""
        wanted = [ERROR]
        wanted += [STDIN] if self.stdin else []
        wanted += [STDOUT] if self.stdout else []
        wanted += [STDERR] if self.stderr and not self.tty else []
        wanted += [RESIZE] if self.tty else []
        return wanted
