"""The private network gives Pod addresses without privileges, and lets nothing out."""

from __future__ import annotations

import subprocess
import sys

import pytest

from konverge.lab import namespaces

PROGRAM = """
import errno, socket, sys
listener = socket.create_server(("10.244.3.4", 8000))
again = socket.create_server(("10.244.3.5", 8000))
service = socket.create_server(("10.96.0.1", 443))
loopback = socket.create_server(("127.20.0.1", 6443))
assert socket.create_connection(("10.244.3.4", 8000), timeout=5).getpeername() == ("10.244.3.4", 8000)
for target, number in ((("10.244.9.9", 8000), errno.ECONNREFUSED), (("192.0.2.1", 80), errno.ENETUNREACH)):
    try:
        socket.create_connection(target, timeout=5)
    except OSError as error:
        assert error.errno == number, error
    else:
        sys.exit("connected to " + target[0])
print("works")
"""


def run_inside(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a private network."""
    wrapper = [sys.executable, "-m", "konverge.lab.namespaces", "--", *command]
    done = subprocess.run(wrapper, capture_output=True, text=True, timeout=60)
    if done.returncode == 3 and "private network" in done.stderr:
        pytest.skip(done.stderr.strip())
    return done


def test_pod_and_service_addresses_work_and_nothing_leaves() -> None:
    done = run_inside(sys.executable, "-c", PROGRAM)
    assert (done.returncode, done.stdout) == (0, "works\n"), done.stderr


def test_exit_code_is_the_commands() -> None:
    assert run_inside(sys.executable, "-c", "raise SystemExit(7)").returncode == 7
    missing = run_inside("no-such-program")
    assert missing.returncode == 127
    assert "no-such-program" in missing.stderr


def test_refusal_says_why(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(flags: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(namespaces, "_call_unshare", refuse)
    assert namespaces.main(["--", "true"]) == 3
    assert "Operation not permitted" in capsys.readouterr().err
