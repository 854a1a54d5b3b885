"""The control plane as a program: it starts, survives a crash of its API server, and leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from konverge.kube.resources import CONFIG_MAPS
from konverge.lab.realplane import PlaneSettings, RealControlPlane

from .planes import run_plane

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("assets_or_skip")]


async def test_objects_survive_a_crash_of_the_api_server() -> None:
    async with RealControlPlane() as plane, plane.client() as client:
        body = {"metadata": {"name": "kept", "namespace": "default"}}
        created = await client.create(CONFIG_MAPS, body)
        before = plane.api_server.pid
        await plane.restart_api_server()
        assert plane.api_server.pid != before
        assert (await client.get(CONFIG_MAPS, "kept", "default"))["metadata"] == created["metadata"]
    assert not plane.directory.exists()
    assert plane.api_server.pid is None


async def test_started_again_in_the_same_directory(tmp_path: Path) -> None:
    settings = PlaneSettings(directory=tmp_path)
    async with RealControlPlane(settings) as plane, plane.client() as client:
        await client.create(CONFIG_MAPS, {"metadata": {"name": "kept", "namespace": "default"}})
        authority = (tmp_path / "ca.crt").read_bytes()
    async with RealControlPlane(settings) as plane, plane.client() as client:
        assert await client.find(CONFIG_MAPS, "kept", "default") is not None
        assert (tmp_path / "ca.crt").read_bytes() == authority
    assert oct(plane.kubeconfig.stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_children_end_with_the_program(tmp_path: Path, number: signal.Signals) -> None:
    with run_plane("--dir", str(tmp_path)) as (process, ready):
        pids = ready["pids"]
        assert isinstance(pids, dict)
        handles = [os.pidfd_open(pid) for pid in pids.values()]
        assert len(handles) == 3
        process.send_signal(number)
        assert process.wait(timeout=40) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        for handle in handles:
            assert select.select([handle], [], [], 10)[0], "a child is still running"
            os.close(handle)


def test_missing_programs_are_named(tmp_path: Path) -> None:
    environment = {**os.environ, "KONVERGE_KUBE_ASSETS": str(tmp_path), "KUBEBUILDER_ASSETS": ""}
    command = [sys.executable, "-m", "konverge.lab.realplane"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "KubeAssetsMissing" in done.stderr
    assert "etcd, kube-apiserver, kube-controller-manager" in done.stderr
