"""A fork server: has the lab's programs imported already and becomes a container's process within milliseconds.

The kubelet sends one SOCK_SEQPACKET message per process (``{"id": n}`` with four descriptors: a memory file with
the launch as JSON, and stdin, stdout, stderr) and gets ``{"id", "pid"}`` and later ``{"id", "exit"}``, where a
negative exit is a signal. It has one thread and no event loop, so that its children start clean.

When the kubelet hangs up, by its death too, the fork server kills every process that descends from it and ends;
it adopts orphans (PR_SET_CHILD_SUBREAPER) so that none escapes. When it is killed itself, its children die with it
(PR_SET_PDEATHSIG) and the kubelet kills what those have left.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import termios
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from konverge.lab.kubelet.processes import descendants
from konverge.lab.pod import die_with_parent

PRELOADED = (
    "asyncio",
    "ssl",
    "aiohttp.web",
    "orjson",
    "yaml",
    "cryptography.x509",
    "cryptography.hazmat.primitives.serialization.pkcs12",
    "konverge.lab.kong",
    "konverge.lab.echo",
    "konverge.lab.sidecar",
)
"""Imported before the first fork; of a package of ours every module but those that are run themselves."""
NOT_PRELOADED = frozenset({"__main__", "command", "cli"})
MESSAGE = 4096
PR_SET_CHILD_SUBREAPER = 36
"""``prctl(2)``: descendants that lose their parent become children of this process."""


def preload() -> list[str]:
    """Import what the programs need; return what could not be imported."""
    missing: list[str] = []
    for name in PRELOADED:
        package = _load(name, missing)
        if package is not None and name.startswith("konverge."):
            for module in pkgutil.walk_packages(package.__path__, name + ".", onerror=missing.append):
                if module.name.rpartition(".")[2] not in NOT_PRELOADED:
                    _load(module.name, missing)
    return missing


def _load(name: str, missing: list[str]) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a program that cannot be imported must not stop the others
        missing.append(f"{name}: {type(error).__name__}: {error}")
        return None


class Zygote:
    """The fork server's loop; :meth:`serve` returns only in a child, with what the child is to run."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._children: dict[int, int] = {}
        self._wake, self._alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        signal.set_wakeup_fd(self._alarm, warn_on_full_buffer=False)

    def serve(self) -> dict[str, Any] | None:
        """Fork on request until the kubelet hangs up (None); in a child return the launch."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._wake:
                    self._reap()
                    continue
                message, descriptors, _, _ = socket.recv_fds(self._channel, MESSAGE, 4)
                if not message:
                    self._kill_descendants()
                    return None
                launch = self._fork(json.loads(message)["id"], descriptors)
                if launch is not None:
                    return launch

    def _fork(self, number: int, descriptors: list[int]) -> dict[str, Any] | None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._tell({"id": number, "error": str(error)})
            pid = -1
        if pid == 0:
            return self._become_child(parent, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        if pid > 0:
            self._children[pid] = number
            self._tell({"id": number, "pid": pid})
        return None

    def _become_child(self, parent: int, descriptors: list[int]) -> dict[str, Any]:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        die_with_parent(parent)
        with open(descriptors[0], "rb", closefd=False) as file:
            launch: dict[str, Any] = json.load(file)
        for target, descriptor in enumerate(descriptors[1:]):
            os.dup2(descriptor, target)
        self._channel.detach()
        os.closerange(3, max(3, *descriptors, self._wake, self._alarm) + 64)
        return launch

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self._children.pop(pid, None)
            if number is not None:
                self._tell({"id": number, "exit": os.waitstatus_to_exitcode(status)})

    def _tell(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._channel.send(json.dumps(message).encode())

    def _kill_descendants(self) -> None:
        while processes := descendants(os.getpid()):
            for pid in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, 0):
                    continue


def run(launch: Mapping[str, Any]) -> None:
    """Be the process of a container: replace environment, directory and arguments, then run its program."""
    os.environ.clear()
    os.environ.update(launch["env"])
    forget_kubeconfig()
    os.chdir(launch["cwd"])
    if launch["tty"]:
        take_terminal()
    argv: list[str] = launch["argv"]
    if not launch["module"]:
        execute(argv, launch["env"])
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace")
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace")
    sys.stdin = os.fdopen(0, encoding="utf-8", errors="replace")
    if launch["function"]:
        sys.argv = [launch["module"].split(".")[0], *argv]
        sys.modules["__main__"].__package__ = None  # else usage texts call the program ``python -m`` this module
        getattr(importlib.import_module(launch["module"]), launch["function"])()
    else:
        sys.argv = [launch["module"], *argv]
        runpy.run_module(launch["module"], run_name="__main__", alter_sys=True)


def forget_kubeconfig() -> None:
    """Correct what the Kubernetes client has read from the environment when it was imported: $KUBECONFIG."""
    for module in list(sys.modules.values()):
        if getattr(module, "KUBE_CONFIG_DEFAULT_LOCATION", None):
            location = os.environ.get("KUBECONFIG", "~/.kube/config")
            module.KUBE_CONFIG_DEFAULT_LOCATION = location  # type: ignore[attr-defined]


def take_terminal() -> None:
    """Make the terminal on stdin the controlling one, so that Ctrl-C reaches the process."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def execute(argv: list[str], env: Mapping[str, str]) -> None:
    """Become a host command; 127 or 126 with a line on stderr as a shell would where that is impossible."""
    try:
        os.execvpe(argv[0], argv, dict(env))  # noqa: S606 - no shell is what a container runtime does
    except OSError as error:
        os.write(2, f"exec: {argv[0]!r}: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def main() -> None:
    """Serve on the descriptor named by the first argument."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[1]))
    for line in preload():
        os.write(2, f"zygote: not preloaded: {line}\n".encode())
    gc.collect()
    gc.freeze()
    channel.send(json.dumps({"id": 0, "pid": os.getpid()}).encode())
    launch = Zygote(channel).serve()
    if launch is not None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run(launch)


if __name__ == "__main__":
    main()
