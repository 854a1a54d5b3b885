"""A lab comes up, is found, and leaves no process behind, however it ends."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab_tools import COMMAND, ask, echo, environment, survivors

from konverge.errors import CheckRefused
from konverge.kube.client import wait_until_reachable
from konverge.kube.resources import DEPLOYMENTS, NODES, SERVICES
from konverge.lab.supervisor.running import Lab
from konverge.lab.supervisor.settings import LabSettings
from konverge.lab.supervisor.states import is_held, read_state

pytestmark = [pytest.mark.lab, pytest.mark.skipif(sys.platform != "linux", reason="the lab needs Linux")]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Run ``konverge lab ...`` in a state directory of its own; nothing is left running."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words], env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False
        )

    yield run
    run("down", "--all")


def marker_of(home: Path, name: str = "lab") -> str:
    state = read_state(home / "labs" / name)
    assert state is not None
    return state.marker


def wait_for_end(marker: str, seconds: float = 10.0) -> None:
    """Processes that got SIGKILL take a moment to leave the table, and nobody can await another's children."""
    deadline = time.monotonic() + seconds
    while left := survivors(marker):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def test_detached_lab_is_up_in_seconds_shown_and_gone_after_down(run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "kubeconfig"
    up = run("up", "-d", "--no-sample", "-o", "json", "--kubeconfig", str(copy))
    assert up.returncode == 0, up.stderr
    state = json.loads(up.stdout)
    assert state["phase"] == "ready"
    assert {item["name"] for item in state["components"]} == {"apiserver", "controllers", "kubelet", "balancer"}
    assert copy.stat().st_mode & 0o077 == 0
    status = json.loads(run("status", "-o", "json").stdout)
    assert status["healthy"]
    assert status["nodes"]
    assert all(node["ready"] for node in status["nodes"])
    assert run("kubeconfig").stdout.strip() == state["kubeconfig"]
    assert "lab " in run("list").stdout
    assert run("logs", "controllers").returncode == 0
    assert run("logs", "nothing").returncode == 1
    marker = marker_of(tmp_path)
    assert len(survivors(marker)) >= 5
    down = run("down")
    assert down.returncode == 0
    assert survivors(marker) == []
    assert run("status").returncode == 1
    assert not (tmp_path / "labs" / "lab" / "files" / "apiserver").exists()


def test_errors_are_one_triple_with_an_exit_code(run: Run, tmp_path: Path) -> None:
    assert run("up", "-d", "--no-sample").returncode == 0
    again = run("up", "-d", "-o", "json")
    assert again.returncode == 3
    assert json.loads(again.stdout)["error"]["reason"] == "LabNameInUse"
    assert "Traceback" not in again.stderr
    foreign = tmp_path / "mine"
    foreign.write_text("apiVersion: v1\n")
    refused = run("up", "-d", "--name", "other", "--kubeconfig", str(foreign))
    assert refused.returncode == 2
    assert "KubeconfigExists" in refused.stderr
    missing = run("down", "--name", "other", "-o", "json")
    assert missing.returncode == 1
    assert json.loads(missing.stdout)["error"]["reason"] == "LabNotRunning"


def test_state_directory_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [*COMMAND, "up", "-d", "--no-sample"]
    refused = subprocess.run(
        command, env=environment(tmp_path / "file"), capture_output=True, text=True, timeout=30, check=False
    )
    assert refused.returncode == 2
    assert "StateUnusable" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_nothing_survives_kill_9_of_the_supervisor_and_the_remains_are_cleaned(run: Run, tmp_path: Path) -> None:
    assert run("up", "-d", "--no-sample").returncode == 0
    kubeconfig = run("kubeconfig").stdout.strip()
    asyncio.run(_deploy(kubeconfig))
    state = read_state(tmp_path / "labs" / "lab")
    assert state is not None
    wait_for_child(state.marker, "sleep 1000")
    os.kill(state.pid, signal.SIGKILL)
    wait_for_end(state.marker)
    assert "killed" in run("list").stdout
    assert run("status").returncode == 1
    assert "remains" in run("down").stdout
    assert run("up", "-d", "--no-sample").returncode == 0


def wait_for_child(marker: str, words: str) -> None:
    """A container counts as started when its shell is; the shell starts its child a moment later."""
    deadline = time.monotonic() + 10
    while not any(words in line for line in survivors(marker)):
        assert time.monotonic() < deadline, survivors(marker)
        time.sleep(0.05)


async def _deploy(kubeconfig: str) -> None:
    """Run a shell with a child: the hardest process to end."""
    from konverge.kube.client import KubeClient
    from konverge.lab.supervisor.waiting import wait_for_deployment

    deployment = echo("shell", 1)[0]
    container = {"name": "c", "image": "lab/host:1", "command": ["/bin/sh", "-c", "sleep 1000; true"]}
    deployment["spec"]["template"]["spec"]["containers"] = [container]
    async with await KubeClient.connect(kubeconfig) as client:
        await client.create(DEPLOYMENTS, deployment)
        await wait_for_deployment(client, "default", "shell", 30)


@pytest.mark.parametrize("moment", ["ready", "starting"])
def test_ctrl_c_ends_a_lab_in_the_foreground_in_order(run: Run, tmp_path: Path, moment: str) -> None:
    lab = subprocess.Popen(
        [*COMMAND, "up", "--no-sample"],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert lab.stdout is not None
    wanted = "is ready at" if moment == "ready" else "kubelet"
    for line in lab.stdout:
        if wanted in line:
            break
    marker = marker_of(tmp_path)
    os.killpg(lab.pid, signal.SIGINT)
    rest = lab.stdout.read()
    assert lab.wait(timeout=20) == 0
    lab.stdout.close()
    assert "Traceback" not in rest
    assert survivors(marker) == []
    assert not is_held(tmp_path / "labs" / "lab")


async def test_two_labs_run_side_by_side(tmp_path: Path) -> None:
    async with (
        Lab.start(LabSettings(name="one", home=tmp_path)) as one,
        Lab.start(LabSettings(name="two", home=tmp_path)) as two,
    ):
        assert one.network.number != two.network.number
        for lab, name in ((one, "first"), (two, "second")):
            async with await lab.client() as client:
                for item in echo(name, 1):
                    await client.create(DEPLOYMENTS if item["kind"] == "Deployment" else SERVICES, item)
            await lab.wait_deployment(name)
            address = await lab.address_of(name)
            await lab.wait_open(address)
            assert (await ask(address)).startswith(name)
        with pytest.raises(CheckRefused):
            async with Lab.start(LabSettings(name="one", home=tmp_path)):
                pass
    assert survivors(one.marker) == survivors(two.marker) == []


async def test_component_that_crashes_comes_back_and_the_cluster_with_it(tmp_path: Path) -> None:
    async with Lab.start(LabSettings(name="crash", home=tmp_path, sync_delay=0.1)) as lab:
        async with await lab.client() as client:
            for item in echo("web", 1):
                await client.create(DEPLOYMENTS if item["kind"] == "Deployment" else SERVICES, item)
        await lab.wait_deployment("web")
        for component in ("apiserver", "controllers", "balancer"):
            before = lab.pid_of(component)
            lab.kill(component)
            await lab.wait_component(component)
            assert lab.pid_of(component) not in (0, before)
        async with await lab.client() as client:
            await wait_until_reachable(client, 10)
            assert await client.list_all(NODES)
            scale = {"spec": {"replicas": 3}}
            await client.patch(DEPLOYMENTS, "web", scale, "default")
        await lab.wait_deployment("web")
        restarts = {item.name: item.restarts for item in lab.state.components}
        assert restarts == {"apiserver": 1, "controllers": 1, "balancer": 1, "kubelet": 0}
    assert survivors(lab.marker) == []


async def test_component_stays_down_where_nobody_restarts_it(tmp_path: Path) -> None:
    async with Lab.start(LabSettings(name="fault", home=tmp_path, restart=False)) as lab:
        lab.kill("controllers")
        async with asyncio.timeout(5):
            while lab.pid_of("controllers"):  # noqa: ASYNC110 - a child's end is seen by its supervisor only
                await asyncio.sleep(0.02)
        await lab.start_again("controllers")
        assert lab.pid_of("controllers")
