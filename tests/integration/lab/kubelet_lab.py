"""A stand-in API server and a kubelet as processes, driven by kubectl: what the kubelet's integration tests share."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from konverge.lab.addressing import LabNetwork, claim_number
from konverge.lab.kubelet.processes import descendants, stat_fields

TIMEOUT = 20.0


def start(*words: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a module of the lab and wait for its ready line."""
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL
        )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    assert process.stdout is not None
    line = process.stdout.readline()
    watchdog.cancel()
    assert b'"ready": true' in line or b'"ready":true' in line, log.read_text()[-3000:]
    return process


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    """Signal a process and wait for its end."""
    process.send_signal(number)
    code = process.wait(TIMEOUT)
    if process.stdout is not None:
        process.stdout.close()
    return code


class KubeletLab:
    """The two processes and kubectl."""

    def __init__(self, directory: Path, number: int) -> None:
        self.directory = directory
        self.network = LabNetwork(number)
        self.kubeconfig = directory / "api" / "admin.kubeconfig"
        self.environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        self.api = self.start_api()
        self.kubelet = self.start_kubelet()

    def start_api(self) -> subprocess.Popen[bytes]:
        return start(
            "konverge.lab.apiserver",
            f"--listen={self.network.node_address}:6443",
            f"--dir={self.directory / 'api'}",
            "--allow-loopback-endpoints",
            log=self.directory / "api.log",
        )

    def restart_api(self) -> None:
        stop(self.api)
        self.api = self.start_api()

    def start_kubelet(self, *more: str) -> subprocess.Popen[bytes]:
        return start(
            "konverge.lab.kubelet",
            f"--kubeconfig={self.kubeconfig}",
            f"--dir={self.directory / 'kubelet'}",
            f"--address={self.network.node_address}",
            f"--pod-cidr={self.network.pod_cidr}",
            f"--ca-cert={self.directory / 'api' / 'ca.crt'}",
            f"--ca-key={self.directory / 'api' / 'ca.key'}",
            "--delays=project=0.2,backoff=0.2",
            *more,
            log=self.directory / "kubelet.log",
        )

    def run(
        self, *words: str, stdin: bytes | None = None, env: dict[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """Run kubectl."""
        done = subprocess.run(
            ["kubectl", *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=TIMEOUT,
            env={**self.environment, **(env or {})},
        )
        assert not check or done.returncode == 0, (words, done.stderr.decode(), self.log())
        return done

    def text(self, *words: str) -> str:
        return self.run(*words).stdout.decode()

    def get(self, kind: str, name: str = "", *more: str) -> dict[str, Any]:
        words = [kind, name] if name else [kind]
        found: dict[str, Any] = json.loads(self.text("get", *words, "-o", "json", *more))
        return found

    def apply(self, *objects: dict[str, Any]) -> None:
        document = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run("apply", "--validate=false", "-f", "-", stdin=json.dumps(document).encode())

    def wait(self, name: str, condition: str = "condition=Ready") -> None:
        self.run("wait", f"--for={condition}", f"pod/{name}", "--timeout=15s")

    def until(self, check: Callable[[], Any], what: str) -> Any:
        """Ask again until ``check`` is true: kubectl cannot wait for everything."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            if value := check():
                return value
            time.sleep(0.05)
        raise AssertionError(f"{what} did not happen; {self.log()}")

    def log(self) -> str:
        return (self.directory / "kubelet.log").read_text()[-2000:]

    def close(self) -> None:
        family = descendants(self.kubelet.pid)
        assert stop(self.kubelet) == 0, self.log()
        assert not [pid for pid in family if is_alive(pid)]
        stop(self.api)


def is_alive(pid: int) -> bool:
    fields = stat_fields(pid)
    return bool(fields) and fields[0] != "Z"


@contextlib.contextmanager
def kubelet_lab(directory: Path) -> Iterator[KubeletLab]:
    """Run a lab of API server and kubelet on addresses of its own."""
    claim = claim_number(directory / "claims")
    try:
        lab = KubeletLab(directory, claim.number)
        try:
            yield lab
        finally:
            lab.close()
    finally:
        claim.release()


def pod(name: str, *containers: dict[str, Any], labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels or {"app": name}},
        "spec": {"containers": list(containers), "terminationGracePeriodSeconds": 2, **spec},
    }


def shell(script: str, **more: Any) -> dict[str, Any]:
    return {"name": "main", "image": "lab/host", "command": ["sh", "-c", script], **more}


def echo(**more: Any) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}
    ports = [{"name": "http", "containerPort": 8080}]
    return {"name": "main", "image": "konverge/echo:1", "ports": ports, "readinessProbe": probe, **more}


@contextlib.contextmanager
def forwarding(lab: KubeletLab, target: str, port: int, env: dict[str, str]) -> Iterator[int]:
    """Run ``kubectl port-forward`` to a free local port and yield it."""
    words: Sequence[str] = ["kubectl", "port-forward", target, f":{port}", "--address=127.0.0.1"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**lab.environment, **env})
    watchdog = threading.Timer(TIMEOUT, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert line.startswith("Forwarding from 127.0.0.1:"), line
        yield int(line.split(":")[1].split(" ")[0])
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()
