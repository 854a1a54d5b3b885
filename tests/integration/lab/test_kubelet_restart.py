"""What is left, and what comes back, when a kubelet ends in one way or another."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from kubelet_lab import KubeletLab, echo, is_alive, kubelet_lab, pod, shell, stop

from konverge.lab.kubelet.processes import descendants

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed"),
]
HARD = "setsid sleep 600 & trap '' TERM; while :; do sleep 0.1; done"


def container(lab: KubeletLab, name: str) -> dict[str, Any]:
    found: dict[str, Any] = lab.get("pod", name)["status"]["containerStatuses"][0]
    return found


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_pods_end_with_the_kubelet_and_come_back_with_the_next(tmp_path: Path, ending: signal.Signals) -> None:
    with kubelet_lab(tmp_path) as lab:
        lab.apply(pod("hard", shell(HARD)), pod("web", echo()))
        lab.wait("hard")
        lab.wait("web")
        before, address = container(lab, "hard"), lab.get("pod", "web")["status"]["podIP"]
        family = descendants(lab.kubelet.pid)
        assert len(family) >= 4
        stop(lab.kubelet, ending)
        lab.until(lambda: not [pid for pid in family if is_alive(pid)], "the end of every process")
        lab.kubelet = lab.start_kubelet()
        lab.until(lambda: container(lab, "hard")["restartCount"] == 1, "the restart")
        lab.wait("web")
        assert container(lab, "hard")["containerID"] != before["containerID"]
        assert lab.get("pod", "web")["status"]["podIP"] == address


def test_a_pod_deleted_while_the_kubelet_is_away_goes_when_it_is_back(tmp_path: Path) -> None:
    with kubelet_lab(tmp_path) as lab:
        lab.apply(pod("web", echo()))
        lab.wait("web")
        stop(lab.kubelet)
        lab.run("wait", "--for=condition=Ready=false", "node/lab-1", "--timeout=5s")
        lab.run("delete", "pod", "web", "--wait=false")
        lab.kubelet = lab.start_kubelet("--no-zygote")
        lab.run("wait", "--for=delete", "pod/web", "--timeout=10s")


def test_the_api_server_may_go_away_and_come_back(tmp_path: Path) -> None:
    with kubelet_lab(tmp_path) as lab:
        lab.apply(pod("web", echo()))
        lab.wait("web")
        pid = container(lab, "web")["containerID"]
        lab.restart_api()
        lab.apply(pod("later", echo()))
        lab.wait("later")
        assert container(lab, "web")["containerID"] == pid
        lab.run("delete", "pod", "web", "later")
