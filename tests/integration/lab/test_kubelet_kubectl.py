"""The kubelet through the stand-in API server, as kubectl and the official client see it."""

from __future__ import annotations

import http.client
import json
import os
import pty
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubelet_lab import TIMEOUT, KubeletLab, echo, forwarding, kubelet_lab, pod, shell

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed"),
]

PROTOCOLS = [
    pytest.param({}, id="websocket"),
    pytest.param(
        {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}, id="spdy"
    ),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeletLab]:
    with kubelet_lab(tmp_path_factory.mktemp("kubelet-lab")) as running:
        running.apply(
            pod("web", echo(env=[{"name": "GREETING", "value": "hello"}])),
            pod("counter", shell("i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done")),
        )
        running.wait("web")
        running.wait("counter")
        yield running


def test_nodes_are_ready_and_leased(lab: KubeletLab) -> None:
    lab.run("wait", "--for=condition=Ready", "node", "--all", "--timeout=5s")
    nodes = lab.get("nodes")["items"]
    assert [item["metadata"]["name"] for item in nodes] == ["lab-1", "lab-2", "lab-3"]
    leases = lab.get("lease", "", "-n", "kube-node-lease")["items"]
    assert {item["spec"]["holderIdentity"] for item in leases} == {"lab-1", "lab-2", "lab-3"}


@pytest.mark.parametrize("env", PROTOCOLS)
def test_exec_passes_streams_and_exit_code(lab: KubeletLab, env: dict[str, str]) -> None:
    done = lab.run("exec", "web", "--", "sh", "-c", "echo $GREETING; echo err >&2; exit 3", env=env, check=False)
    assert done.returncode == 3
    assert done.stdout == b"hello\n"
    assert done.stderr.startswith(b"err\n")
    payload = os.urandom(2_000_000)
    assert lab.run("exec", "-i", "web", "--", "cat", stdin=payload, env=env).stdout == payload


@pytest.mark.parametrize("env", PROTOCOLS)
def test_exec_with_a_terminal(lab: KubeletLab, env: dict[str, str]) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["kubectl", "exec", "-it", "web", "--", "sh"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**lab.environment, **env},
        start_new_session=True,
    )
    os.close(slave)
    watchdog = threading.Timer(TIMEOUT, process.kill)
    watchdog.start()
    os.write(master, b"tty; echo do''ne; exit 4\n")
    seen = b""
    while b"done" not in seen:
        seen += os.read(master, 4096)
    assert b"/dev/pts/" in seen
    assert process.wait() == 4
    watchdog.cancel()
    os.close(master)


def test_exec_errors_are_told_as_by_a_real_cluster(lab: KubeletLab) -> None:
    missing = lab.run("exec", "web", "-c", "nope", "--", "true", check=False)
    assert b"container nope" in missing.stderr
    program = lab.run("exec", "web", "--", "no-such-program", check=False)
    assert program.returncode == 127


def test_logs_follow_tail_and_stamps(lab: KubeletLab) -> None:
    process = subprocess.Popen(
        ["kubectl", "logs", "-f", "counter", "--tail=1"], stdout=subprocess.PIPE, env=lab.environment
    )
    watchdog = threading.Timer(TIMEOUT, process.kill)
    watchdog.start()
    assert process.stdout is not None
    numbers = [int(process.stdout.readline().split()[1]) for _ in range(4)]
    watchdog.cancel()
    process.kill()
    process.communicate()
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    assert lab.text("logs", "counter", "--limit-bytes=13") == "line 1\nline 2"
    stamped = lab.text("logs", "counter", "--timestamps", "--tail=2").splitlines()
    assert len(stamped) == 2
    assert all("Z line " in line for line in stamped)


def test_logs_of_the_run_before(lab: KubeletLab) -> None:
    lab.apply(pod("crash", shell("echo dying; exit 7")))
    lab.until(lambda: status(lab, "crash").get("restartCount", 0) >= 2, "the second restart")
    assert lab.text("logs", "crash", "--previous") == "dying\n"
    assert status(lab, "crash")["lastState"]["terminated"]["exitCode"] == 7
    lab.run("delete", "pod", "crash")


def status(lab: KubeletLab, name: str) -> dict[str, Any]:
    statuses = lab.get("pod", name).get("status", {}).get("containerStatuses") or [{}]
    found: dict[str, Any] = statuses[0]
    return found


@pytest.mark.parametrize("env", PROTOCOLS)
def test_port_forward(lab: KubeletLab, env: dict[str, str]) -> None:
    with forwarding(lab, "pod/web", 8080, env) as port:
        for number in range(5):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            body = os.urandom(300_000)
            connection.request("POST", f"/echo/{number}", body=body)
            response = connection.getresponse()
            assert response.status == 200
            assert b'"pod":"web"' in response.read().replace(b": ", b":")
            connection.close()


OFFICIAL = r"""
import json, sys
from kubernetes import client, config
from kubernetes.stream import portforward, stream

config.load_kube_config(sys.argv[1])
core = client.CoreV1Api()
run = core.connect_get_namespaced_pod_exec
options = {"stderr": True, "stdout": True, "tty": False}
result = {"echo": stream(run, "web", "default", command=["echo", "x"], stdin=False, **options)}
socket = stream(run, "web", "default", command=["cat"], stdin=True, _preload_content=False, **options)
socket.write_stdin("typed\n")
result["line"] = socket.readline_stdout(timeout=10)
socket.close_channel(0)
socket.run_forever(timeout=10)
result["code"], result["protocol"] = socket.returncode, socket.subprotocol
forward = portforward(core.connect_get_namespaced_pod_portforward, "web", "default", ports="8080,9")
local = forward.socket(8080)
local.setblocking(True)
local.sendall(b"GET / HTTP/1.0\r\n\r\n")
answer = b""
while block := local.recv(65536):
    answer += block
result["answer"], result["error"] = answer[:7].decode(), forward.error(9)
forward.close()
print(json.dumps(result))
"""


def test_the_official_client_streams_and_forwards(lab: KubeletLab) -> None:
    # In a process of its own: the official client leaves its sockets to the garbage collector.
    words = [sys.executable, "-c", OFFICIAL, str(lab.kubeconfig)]
    done = subprocess.run(words, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    assert "connection refused" in result.pop("error")
    assert result == {
        "echo": "x\n",
        "line": "typed",
        "code": 0,
        "protocol": "v5.channel.k8s.io",
        "answer": "HTTP/1.",
    }


def test_a_readiness_gate_set_by_somebody_else(lab: KubeletLab) -> None:
    lab.apply(pod("gated", echo(), readinessGates=[{"conditionType": "konverge.dev/configured"}]))
    lab.wait("gated", "condition=ContainersReady")
    assert condition(lab, "gated", "Ready")["reason"] == "ReadinessGatesNotReady"
    for value, expected in (("True", "true"), ("False", "false")):
        patch = {"status": {"conditions": [{"type": "konverge.dev/configured", "status": value}]}}
        lab.run("patch", "pod", "gated", "--subresource=status", "--type=strategic", "-p", json.dumps(patch))
        lab.wait("gated", f"condition=Ready={expected}")
        assert condition(lab, "gated", "konverge.dev/configured")["status"] == value
    lab.run("delete", "pod", "gated")


def condition(lab: KubeletLab, name: str, kind: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = lab.get("pod", name)["status"]["conditions"]
    return next(item for item in found if item["type"] == kind)


def test_a_secret_appears_and_changes_under_a_running_pod(lab: KubeletLab) -> None:
    volume = {"name": "v", "secret": {"secretName": "late"}}
    container = shell("exec sleep 600", volumeMounts=[{"name": "v", "mountPath": "/secret"}])
    lab.apply(pod("mounts", container, volumes=[volume]))
    lab.until(lambda: 'secret "late" not found' in lab.text("events", "--for=pod/mounts"), "FailedMount")
    lab.run("create", "secret", "generic", "late", "--from-literal=k=old")
    lab.wait("mounts")
    assert lab.text("exec", "mounts", "--", "cat", "/secret/k") == "old"
    lab.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "late", "namespace": "default"},
            "stringData": {"k": "new"},
        }
    )
    lab.until(lambda: lab.text("exec", "mounts", "--", "cat", "/secret/k") == "new", "the projection")
    lab.run("delete", "pod", "mounts")


def test_the_service_account_of_a_pod_works(lab: KubeletLab) -> None:
    script = 'kubectl auth whoami -o jsonpath="{.status.userInfo.username}"'
    assert lab.text("exec", "web", "--", "sh", "-c", script) == "system:serviceaccount:default:default"


def test_anti_affinity_spreads_and_the_last_pod_stays_pending(lab: KubeletLab) -> None:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "apart"}}}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    pods = [pod(f"apart-{n}", shell("exec sleep 600"), labels={"app": "apart"}, affinity=affinity) for n in range(4)]
    lab.apply(*pods)
    lab.until(lambda: "didn't match pod anti-affinity rules" in lab.text("events"), "FailedScheduling")
    items = lab.get("pods", "", "-l", "app=apart")["items"]
    assert len({item["spec"].get("nodeName") for item in items}) == 4  # three nodes and None
    lab.run("delete", "pod", "-l", "app=apart")


def test_eviction_deletes_gracefully(lab: KubeletLab) -> None:
    lab.apply(pod("evicted", shell("exec sleep 600")))
    lab.wait("evicted")
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted", "namespace": "default"}}
    path = "/api/v1/namespaces/default/pods/evicted/eviction"
    lab.run("create", "--raw", path, "-f", "-", stdin=json.dumps(body).encode())
    lab.run("wait", "--for=delete", "pod/evicted", "--timeout=10s")


def test_force_deletion_removes_the_object_at_once_and_the_process_soon(lab: KubeletLab, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    lab.apply(pod("stubborn", shell(f"trap '' TERM; echo $$$$ > {pid_file}; while :; do sleep 0.1; done")))
    lab.wait("stubborn")
    lab.until(pid_file.exists, "the process id")
    pid = int(pid_file.read_text())
    lab.run("delete", "pod", "stubborn", "--force", "--grace-period=0")
    lab.until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the process")
