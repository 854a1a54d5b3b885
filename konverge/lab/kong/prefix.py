"""The prefix directory: pid file, logs, stored configuration."""

from __future__ import annotations

import time
from pathlib import Path


class Prefix:
    """PREFIX on disk; without a path nothing is written."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    @property
    def pid_file(self) -> Path | None:
        """Return the path of nginx.pid."""
        return None if self.path is None else self.path / "pids" / "nginx.pid"

    def prepare(self) -> None:
        """Create what a start needs."""
        if self.path is not None:
            for name in ("pids", "logs"):
                (self.path / name).mkdir(parents=True, exist_ok=True)

    def write_pid(self, pid: int) -> None:
        """Write the pid file."""
        if self.pid_file is not None:
            self.pid_file.write_text(f"{pid}\n")

    def read_environment(self) -> dict[str, str]:
        """Return the settings that ``kong reload -c`` wrote."""
        if self.path is None:
            return {}
        try:
            lines = (self.path / ".kong_env").read_text().splitlines()
        except OSError:
            return {}
        return {name: value for name, equals, value in (line.partition("=") for line in lines) if equals}

    def remove_pid(self) -> None:
        """Remove the pid file."""
        if self.pid_file is not None:
            self.pid_file.unlink(missing_ok=True)

    def log(self, line: str) -> None:
        """Append to error.log in nginx's format."""
        if self.path is not None:
            stamp = time.strftime("%Y/%m/%d %H:%M:%S")
            with (self.path / "logs" / "error.log").open("a", encoding="utf-8") as stream:
                stream.write(f"{stamp} {line}\n")
