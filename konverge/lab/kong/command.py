"""``kong`` inside a container: ``python -m konverge.lab.kong.command ACTION``.

Actions: reload, quit, stop, start, restart, drain, health, version, check, migrations.
It finds the node by PREFIX/pids/nginx.pid and talks to it by signals, as the real command does. Only the standard
library is loaded: an exec into a pod should answer at once. Texts and exit codes follow Kong 3.9.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from konverge.lab.kong.filetest import BadConfiguration, check_files, read_conf
from konverge.lab.pod import PodEnvironment

VERSION = "3.9.3"
DEFAULT_PREFIX = "/usr/local/kong/"
DEFAULT_STATUS = "127.0.0.1:8007"
START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
MIGRATIONS = {
    "bootstrap": "Database already bootstrapped",
    "up": "Database is already up-to-date",
    "finish": "No pending migrations to finish",
    "list": "Executed migrations:\ncore: 000_base",
    "reset": "Database not bootstrapped, nothing to reset",
}
ENVIRONMENT_FILE = ".kong_env"


class Failed(Exception):
    """The command fails; the text is printed after "Error: "."""


class Command:
    """One run of the command against one prefix."""

    def __init__(self, environ: Mapping[str, str], prefix: str | None, conf: str | None) -> None:
        self._pod = PodEnvironment.read(environ)
        self.environ = dict(environ)
        if conf:
            path = self._pod.resolve_path(conf)
            # Variables of the environment win over the file, as in Kong.
            self.environ = read_conf(path) | self.environ
            self._from_conf: dict[str, str] | None = read_conf(path)
        else:
            self._from_conf = None
        self.shown = prefix or self.environ.get("KONG_PREFIX", DEFAULT_PREFIX)
        self.prefix = self._pod.resolve_path(self.shown)

    def pid(self) -> int | None:
        """Return the pid of a running node."""
        try:
            pid = int((self.prefix / "pids" / "nginx.pid").read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid

    def _running(self) -> int:
        pid = self.pid()
        if pid is None:
            raise Failed(f"nginx not running in prefix: {self.shown.rstrip('/')}")
        return pid

    def _test(self) -> None:
        try:
            check_files(self.environ, self._pod)
        except BadConfiguration as error:
            raise Failed(str(error)) from None

    def reload(self) -> str:
        """Test the files, then send HUP. The node needs 0.7 s and more from here."""
        pid = self._running()
        self._test()
        if self._from_conf is not None:
            lines = [f"{name}={value}\n" for name, value in sorted(self._from_conf.items())]
            (self.prefix / ENVIRONMENT_FILE).write_text("".join(lines))
        os.kill(pid, signal.SIGHUP)
        return "Kong reloaded"

    def quit(self, wait: float, timeout: float) -> str:
        """Wait, then end gracefully; after the timeout by force."""
        pid = self._running()
        time.sleep(wait)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT)
        if self._gone(pid, timeout):
            return "Kong stopped (gracefully)"
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        return "Timeout, Kong stopped forcefully"

    def stop(self) -> str:
        """End at once."""
        pid = self._running()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        if not self._gone(pid, STOP_TIMEOUT):
            raise Failed(f"Kong did not stop within {STOP_TIMEOUT:g} s")
        return "Kong stopped"

    def start(self) -> str:
        """Start a node that outlives this command."""
        if self.pid() is not None:
            raise Failed(f"Kong is already running in {self.shown.rstrip('/')}")
        self._test()
        environ = self.environ | {"KONVERGE_LAB_KONG_DAEMON": "1", "KONG_PREFIX": self.shown}
        # Not subprocess.Popen: nobody waits for this child, it is to outlive the command.
        pid = os.posix_spawn(sys.executable, [sys.executable, "-m", "konverge.lab.kong"], environ, setsid=True)
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                raise Failed(f"could not start nginx: exit code {os.waitstatus_to_exitcode(status)}")
            if self.pid() == pid:
                return "Kong started"
            time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise Failed(f"Kong did not start within {START_TIMEOUT:g} s")

    def restart(self) -> str:
        """Stop, then start: with broken files the node stays down."""
        if self.pid() is not None:
            sys.stdout.write(self.stop() + "\n")
        return self.start()

    def health(self) -> str:
        """Tell whether the node runs."""
        if self.pid() is None:
            sys.stdout.write("nginx.......not running\n\n")
            raise Failed(f"Kong is not running at {self.shown.rstrip('/')}")
        return f"nginx.......running\n\nKong is healthy at {self.shown.rstrip('/')}"

    def drain(self) -> str:
        """Make /status/ready answer 503 from now on."""
        listen = self.environ.get("KONG_STATUS_LISTEN", DEFAULT_STATUS).split(",")[0].split()[0]
        host, _, port = listen.rpartition(":")
        address = self._pod.resolve_hosts(host)[0].replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        connection = http.client.HTTPConnection(address.strip("[]"), int(port), timeout=5)
        try:
            connection.request("POST", "/status/ready", '{"status":"draining"}', {"Content-Type": "application/json"})
            status = connection.getresponse().status
        except OSError as error:
            raise Failed(f"Failed to send request to status API: {error.strerror or error}") from None
        finally:
            connection.close()
        if status != 204:
            raise Failed(f"Status API returned {status}")
        return "Kong's status successfully changed to 'draining'"

    def _gone(self, pid: int, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return True
            if _reap(pid):
                return True
            time.sleep(0.02)
        return False


def _reap(pid: int) -> bool:
    """Tell whether a process has ended and only waits to be collected; collect it where it is a child."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kong", description="Control a stand-in Kong.")
    names = ("reload", "quit", "stop", "start", "restart", "drain", "health", "version", "check", "migrations")
    parser.add_argument("action", choices=names)
    parser.add_argument("step", nargs="?", choices=tuple(MIGRATIONS), help="of migrations")
    parser.add_argument("-p", "--prefix")
    parser.add_argument("-c", "--conf")
    parser.add_argument("-w", "--wait", type=float, default=0.0)
    parser.add_argument("-t", "--timeout", type=float, default=STOP_TIMEOUT)
    parser.add_argument("--v", "--vv", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str], environ: Mapping[str, str] | None = None) -> int:
    """Run one action; return the exit code."""
    options = _parse(arguments)
    if options.action == "migrations":
        # The file that plays the database has its tables from the first start on: there is nothing to do.
        sys.stdout.write(MIGRATIONS[options.step or "list"] + "\n")
        return 0
    if options.action == "version":
        sys.stdout.write(VERSION + "\n")
        return 0
    try:
        command = Command(os.environ if environ is None else environ, options.prefix, options.conf)
        actions: dict[str, Callable[[], str]] = {
            "reload": command.reload,
            "quit": lambda: command.quit(options.wait, options.timeout),
            "stop": command.stop,
            "start": command.start,
            "restart": command.restart,
            "drain": command.drain,
            "health": command.health,
            "check": lambda: check_files(command.environ, PodEnvironment.read(command.environ)) or "configuration ok",
        }
        sys.stdout.write(actions[options.action]() + "\n")
    except (Failed, BadConfiguration) as failure:
        sys.stderr.write(f"Error: {failure}\n\n  Run with --v (verbose) or --vv (debug) for more details\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
