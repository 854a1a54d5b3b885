"""The parts of the supervisor on their own: addresses, states, children, sweeping, errors."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from konverge.errors import CheckRefused, FinalError, KonvergeError, NotFound, Unavailable, UsageError
from konverge.lab.addressing import LabNetwork, claim_number
from konverge.lab.supervisor import detaching, watchdog
from konverge.lab.supervisor.children import Child
from konverge.lab.supervisor.cleaning import clean_up, prepare_place, remove_files
from konverge.lab.supervisor.components import Blueprint
from konverge.lab.supervisor.exporting import export_kubeconfig, is_ours
from konverge.lab.supervisor.reading import read_file
from konverge.lab.supervisor.settings import LabSettings, find_home
from konverge.lab.supervisor.showing import exit_code_of, next_steps, summarise
from konverge.lab.supervisor.states import (
    LabState,
    holding,
    is_held,
    list_states,
    read_state,
    require_running,
    write_state,
)
from konverge.lab.supervisor.stopping import stop_lab

SLEEPER = "import time; print('{\"ready\": true}', flush=True); time.sleep(60)"


def state_of(place: Path, *, pid: int = 1, nonce: str = "n") -> LabState:
    return LabState(
        name=place.name,
        nonce=nonce,
        pid=pid,
        started=time.time(),
        network=20,
        private=False,
        control_plane="lab",
        directory=place / "files",
        kubeconfig=place / "files" / "apiserver" / "admin.kubeconfig",
        server="https://127.20.0.1:6443",
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    found = tmp_path / "labs" / "demo"
    found.mkdir(parents=True)
    return found


def test_networks_of_two_labs_do_not_overlap_and_fit_the_convention() -> None:
    one, two = LabNetwork(20), LabNetwork(21)
    assert one.node_address == "127.20.0.1"
    assert (one.pod_cidr, one.loopback_cidr) == ("127.20.64.0/18", "127.20.128.0/18")
    assert (one.service_cidr, one.load_balancer_cidr) == ("127.20.16.0/20", "127.20.8.0/24")
    assert not {two.pod_cidr, two.service_cidr} & {one.pod_cidr, one.service_cidr}
    assert LabNetwork(private=True).pod_cidr.startswith("10.244.")


def test_claims_are_exclusive_even_over_state_directories_and_given_back(tmp_path: Path) -> None:
    numbers = (241, 242)
    one = claim_number(tmp_path / "a", numbers)
    two = claim_number(tmp_path / "b", numbers)
    assert {one.number, two.number} == set(numbers)
    with pytest.raises(CheckRefused) as refused:
        claim_number(tmp_path / "a", numbers)
    assert refused.value.reason == "NoFreeNetwork"
    one.release()
    again = claim_number(tmp_path / "a", numbers)
    assert again.number == one.number
    two.release()
    again.release()


def test_number_whose_port_somebody_uses_is_passed_over(tmp_path: Path) -> None:
    import socket

    with socket.socket() as holder:
        holder.bind(("127.243.0.1", 6443))
        holder.listen()
        claim = claim_number(tmp_path, (243, 244))
    assert claim.number == 244
    claim.release()


def test_lock_tells_a_running_lab_from_a_killed_one(place: Path, tmp_path: Path) -> None:
    write_state(place, state_of(place))
    assert not is_held(place)
    with holding(place, "demo"):
        assert is_held(place)
        assert require_running(tmp_path, "demo").name == "demo"
        with pytest.raises(CheckRefused) as refused, holding(place, "demo"):
            pass
        assert refused.value.reason == "LabNameInUse"
        assert list_states(tmp_path)[0][1] is True
    assert not is_held(place)
    with pytest.raises(NotFound):
        require_running(tmp_path, "demo")


def test_half_written_state_is_no_state(place: Path) -> None:
    (place / "state.json").write_text('{"name": "demo"')
    assert read_state(place) is None


def test_only_the_components_own_directories_are_removed(tmp_path: Path) -> None:
    for name in ("apiserver", "kubelet", "logs", "precious"):
        (tmp_path / name).mkdir()
    remove_files(tmp_path)
    assert {item.name for item in tmp_path.iterdir()} == {"logs", "precious"}


def test_stale_lab_is_swept_before_a_new_one_starts(place: Path, tmp_path: Path) -> None:
    marker = {watchdog.MARKER: "demo/n"}
    left = subprocess.Popen([sys.executable, "-c", SLEEPER], env={**os.environ, **marker}, stdout=subprocess.PIPE)
    assert left.stdout is not None
    left.stdout.readline()
    write_state(place, state_of(place))
    (place / "files" / "kubelet").mkdir(parents=True)
    prepare_place(LabSettings(name="demo", home=tmp_path))
    assert left.wait(timeout=5) == -signal.SIGKILL
    left.stdout.close()
    assert read_state(place) is None
    assert not (place / "files" / "kubelet").exists()


def test_clean_up_of_nothing_is_nothing(place: Path) -> None:
    assert clean_up(place) == 0


def test_sweep_spares_other_labs_and_names_that_begin_alike() -> None:
    others = [
        subprocess.Popen(
            [sys.executable, "-c", SLEEPER], env={**os.environ, watchdog.MARKER: marker}, stdout=subprocess.PIPE
        )
        for marker in ("x/1", "x/12", "y/1")
    ]
    for process in others:
        assert process.stdout is not None
        process.stdout.readline()
    try:
        assert watchdog.find_marked("x/1") == [others[0].pid]
        assert watchdog.sweep("x/1") >= 1
        assert others[0].wait(timeout=5) == -signal.SIGKILL
        assert [process.poll() for process in others[1:]] == [None, None]
    finally:
        for process in others:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def test_watchdog_ends_grandchildren_after_its_supervisor_was_killed() -> None:
    environment = {**os.environ, watchdog.MARKER: f"w/{os.getpid()}"}
    # A shell between supervisor and process: a parent-death signal would not reach the process.
    shell = subprocess.Popen(
        ["/bin/sh", "-c", f'"{sys.executable}" -c "import time; time.sleep(60)" & echo $!; wait'],
        env=environment,
        stdout=subprocess.PIPE,
    )
    assert shell.stdout is not None
    grandchild = int(shell.stdout.readline())
    dog = subprocess.Popen(
        [sys.executable, "-S", "-E", watchdog.__file__, f"w/{os.getpid()}"], stdin=subprocess.PIPE, env=environment
    )
    assert dog.stdin is not None
    dog.stdin.close()
    assert dog.wait(timeout=10) == 0
    shell.wait(timeout=5)
    shell.stdout.close()
    assert not Path(f"/proc/{grandchild}/environ").exists() or not _alive(grandchild)


def _alive(pid: int) -> bool:
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def child(tmp_path: Path, code: str) -> Child:
    return Child("part", [sys.executable, "-c", code], dict(os.environ), tmp_path / "part.log")


async def test_child_is_ready_with_its_first_line_of_json(tmp_path: Path) -> None:
    part = child(tmp_path, "print('noise'); " + SLEEPER)
    await part.start()
    await part.wait_ready(10)
    assert part.details == {"ready": True}
    assert part.pid
    await part.stop()
    assert part.pid == 0
    assert "noise" in part.log.read_text()


async def test_child_that_ends_too_early_says_what_its_log_says(tmp_path: Path) -> None:
    part = child(tmp_path, "import sys; sys.exit('port 6443 is taken')")
    await part.start()
    with pytest.raises(Unavailable) as failed:
        await part.wait_ready(10)
    assert failed.value.reason == "ComponentFailed"
    assert "port 6443 is taken" in failed.value.message
    assert str(part.log) in failed.value.message


async def test_child_that_never_gets_ready_times_out(tmp_path: Path) -> None:
    part = child(tmp_path, "import time; time.sleep(60)")
    await part.start()
    with pytest.raises(Unavailable, match="not ready after"):
        await part.wait_ready(0.1)
    await part.stop()


async def test_child_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("konverge.lab.supervisor.children.TERM_SECONDS", 0.1)
    part = child(tmp_path, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER)
    await part.start()
    await part.wait_ready(10)
    await part.stop()
    assert await part.wait() == -signal.SIGKILL


def test_components_never_inherit_another_cluster(tmp_path: Path) -> None:
    blueprint = Blueprint(LabSettings(home=tmp_path), LabNetwork(33), "lab/n")
    environment = blueprint.environment({"KUBECONFIG": "/elsewhere", "KUBERNETES_SERVICE_HOST": "x", "PATH": "/bin"})
    assert environment == {"PATH": "/bin", watchdog.MARKER: "lab/n", "PYTHONUNBUFFERED": "1"}


def test_command_lines_follow_the_settings(tmp_path: Path) -> None:
    settings = LabSettings(home=tmp_path, rbac=False, sync_delay=0.25)
    blueprint = Blueprint(settings, LabNetwork(33), "lab/n")
    assert "--no-rbac" in blueprint.control_plane().argv
    assert "127.33.0.1:6443" in blueprint.control_plane().argv
    controllers, kubelet, balancer = blueprint.followers()
    assert "--only-load-balancers" not in controllers.argv
    assert "127.33.64.0/18" in kubelet.argv
    assert balancer.argv[balancer.argv.index("--sync-delay") + 1] == "0.25"


def test_real_control_plane_brings_its_own_controllers_and_cluster_addresses(tmp_path: Path) -> None:
    settings = LabSettings(home=tmp_path, control_plane="real")
    blueprint = Blueprint(settings, LabNetwork(private=True), "lab/n")
    assert "konverge.lab.realplane" in blueprint.control_plane().argv
    controllers, kubelet, _ = blueprint.followers()
    assert "--only-load-balancers" in controllers.argv
    assert "10.244.0.0/18" in kubelet.argv
    assert "konverge.lab.namespaces" in detaching.supervisor_command(settings)


@pytest.mark.parametrize("name", ["", "A", "-a", "a/b", "a" * 33, ".."])
def test_names_that_could_leave_the_directory_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        LabSettings(name=name, home=tmp_path)


def test_home_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KONVERGE_LAB_HOME", str(tmp_path / "x"))
    assert find_home() == tmp_path / "x"
    monkeypatch.delenv("KONVERGE_LAB_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert find_home() == tmp_path / "konverge" / "lab"


def test_kubeconfig_of_the_user_is_never_overwritten(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "config"
    source.write_text("{}")
    target.write_text("apiVersion: v1\n")
    with pytest.raises(UsageError):
        export_kubeconfig(source, target)
    assert target.read_text() == "apiVersion: v1\n"
    target.unlink()
    export_kubeconfig(source, target)
    assert is_ours(target)
    assert target.stat().st_mode & 0o777 == 0o600
    source.write_text('{"a": 1}')
    export_kubeconfig(source, target)
    assert target.read_text().endswith('{"a": 1}')


def follow(*messages: dict[str, Any], log: Path, refused: bool = False) -> LabState:
    lines: Iterator[bytes] = iter(io.BytesIO(b"".join(json.dumps(item).encode() + b"\n" for item in messages)))
    return detaching._follow(lines, lambda what, how: None, log, refused=refused)


def test_waiting_command_gets_the_state_or_the_error_of_the_supervisor(place: Path) -> None:
    log = place / "supervisor.log"
    log.write_text("Traceback\nKeyError: 'x'\n")
    state = state_of(place)
    progress = {"what": "kubelet", "how": "starting"}
    assert follow(progress, {"ready": state.model_dump(mode="json")}, log=log) == state
    error = CheckRefused("no", reason="NoFreeNetwork", hint="howto/lab.md#x")
    with pytest.raises(CheckRefused) as refused:
        follow({"error": error.triple(), "type": "CheckRefused"}, log=log)
    assert refused.value.triple() == error.triple()
    with pytest.raises(Unavailable, match="KeyError: 'x'"):
        follow(progress, log=log)
    log.write_text("No private network\n")
    with pytest.raises(CheckRefused, match="No private network"):
        follow(log=log, refused=True)


def test_exit_codes_tell_refused_from_failed_from_wrong_words() -> None:
    assert [exit_code_of(kind("x")) for kind in (FinalError, UsageError, CheckRefused)] == [1, 2, 3]
    assert isinstance(detaching.rebuild({"error": KonvergeError("x").triple(), "type": "os"}), KonvergeError)


def test_next_steps_name_the_lab_and_how_to_reach_it(place: Path) -> None:
    shown = "\n".join(next_steps(state_of(place)))
    assert "export KUBECONFIG=" in shown
    assert "konverge lab down --name demo" in shown
    private = state_of(place).model_copy(update={"private": True})
    assert "konverge lab run --name demo -- kubectl" in "\n".join(next_steps(private))


@pytest.mark.parametrize(
    ("pod", "word"),
    [
        ({"metadata": {"deletionTimestamp": "now"}}, "Terminating"),
        ({"metadata": {}, "status": {"phase": "Running"}}, "Running"),
        ({"metadata": {}}, "Pending"),
        (
            {
                "metadata": {},
                "status": {"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
            },
            "CrashLoopBackOff",
        ),
    ],
)
def test_pods_are_summarised_as_kubectl_does(pod: dict[str, Any], word: str) -> None:
    assert summarise(pod) == word


async def test_followed_log_goes_on_when_the_file_grows(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"one\n")
    chunks = read_file(log, follow=True)
    assert await anext(chunks) == b"one\n"
    waiting = asyncio.ensure_future(anext(chunks))
    with log.open("ab") as more:
        more.write(b"two\n")
    assert await asyncio.wait_for(waiting, 5) == b"two\n"
    await chunks.aclose()  # type: ignore[attr-defined]
    assert [chunk async for chunk in read_file(log, follow=False)] == [b"one\ntwo\n"]


def test_stopping_what_does_not_run_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as missing:
        stop_lab(tmp_path, "nothing")
    assert missing.value.reason == "LabNotRunning"
