"""kubectl as people use it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_wire import Api, deployment, pod

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
Kubectl = Callable[..., str]


@pytest.fixture
def kubectl(kubeconfig: Path, ns: str, tmp_path: Path) -> Kubectl:
    def run(*arguments: str, stdin: str = "", fails: bool = False) -> str:
        command = ["kubectl", "--kubeconfig", str(kubeconfig), "-n", ns, "--cache-dir", str(tmp_path), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
        assert (done.returncode != 0) == fails, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr if fails else done.stdout

    return run


def manifest(*objects: Any) -> str:
    return yaml.safe_dump_all(objects)


async def test_apply_is_idempotent(kubectl: Kubectl, ns: str) -> None:
    objects = manifest({**deployment("d"), "spec": {**deployment("d")["spec"], "paused": True}})
    assert kubectl("apply", "-f", "-", stdin=objects) == "deployment.apps/d created\n"
    assert kubectl("apply", "-f", "-", stdin=objects) == "deployment.apps/d unchanged\n"
    changed = objects.replace("example.org/x:1", "example.org/x:2")
    assert kubectl("apply", "-f", "-", stdin=changed) == "deployment.apps/d configured\n"
    image = kubectl("get", "deployment", "d", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
    assert image == "example.org/x:2"


async def test_apply_refuses_unknown_fields(kubectl: Kubectl) -> None:
    body = deployment("d")
    body["spec"]["nope"] = 1
    assert 'unknown field "spec.nope"' in kubectl("apply", "-f", "-", stdin=manifest(body), fails=True)


async def test_server_side_apply(kubectl: Kubectl) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1"}}
    assert kubectl("apply", "--server-side", "-f", "-", stdin=manifest(body)) == "configmap/a serverside-applied\n"
    kubectl("patch", "configmap", "a", "--type=merge", "-p", '{"data":{"x":"2"}}')
    shown = kubectl("apply", "--server-side", "-f", "-", stdin=manifest(body), fails=True)
    assert 'conflict with "kubectl-patch" using v1: .data.x' in shown
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest(body))
    assert kubectl("get", "configmap", "a", "-o", "jsonpath={.data.x}") == "1"


async def test_create_label_annotate_patch(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "a", "--from-literal=x=1")
    kubectl("label", "configmap", "a", "l=v")
    kubectl("annotate", "configmap", "a", "n=w")
    kubectl("patch", "configmap", "a", "--type=json", "-p", '[{"op":"add","path":"/data/y","value":"2"}]')
    kubectl("patch", "configmap", "a", "--type=merge", "-p", '{"data":{"x":null}}')
    found = json.loads(kubectl("get", "configmap", "a", "-o", "json"))
    assert (found["data"], found["metadata"]["labels"], found["metadata"]["annotations"]) == (
        {"y": "2"},
        {"l": "v"},
        {"n": "w"},
    )


async def test_create_secret_and_service_account(kubectl: Kubectl) -> None:
    kubectl("create", "secret", "generic", "s", "--from-literal=a=b")
    assert kubectl("get", "secret", "s", "-o", "jsonpath={.data.a}") == "Yg=="
    kubectl("create", "serviceaccount", "robot")
    assert kubectl("create", "token", "robot").count(".") == 2


async def test_get_prints_columns(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=manifest(deployment("d")))
    head, row = kubectl("get", "deployments").splitlines()
    assert head.split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert row.split()[:4] == ["d", "0/0", "0", "0"]
    assert "SELECTOR" in kubectl("get", "deployments", "-o", "wide")
    assert "deployment.apps/d" in kubectl("get", "all")


async def test_get_everywhere(kubectl: Kubectl, ns: str) -> None:
    assert ns in kubectl("get", "serviceaccounts", "-A")


async def test_describe(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=manifest({**pod("p"), "apiVersion": "v1", "kind": "Pod"}))
    shown = kubectl("describe", "pod", "p")
    assert "example.org/x:1" in shown
    assert "Pending" in shown


async def test_scale(kubectl: Kubectl) -> None:
    body = {**deployment("d"), "spec": {**deployment("d")["spec"], "paused": True}}
    kubectl("apply", "-f", "-", stdin=manifest(body))
    kubectl("scale", "deployment", "d", "--replicas=2")
    assert kubectl("get", "deployment", "d", "-o", "jsonpath={.spec.replicas}") == "2"


async def test_rollout_status(api: Api, ns: str, kubectl: Kubectl) -> None:
    await api.ok("POST", f"/apis/apps/v1/namespaces/{ns}/deployments", deployment("d"))
    status = {
        "observedGeneration": 1,
        "replicas": 0,
        "updatedReplicas": 0,
        "availableReplicas": 0,
        "conditions": [{"type": "Available", "status": "True", "reason": "Enough", "message": "enough"}],
    }
    path = f"/apis/apps/v1/namespaces/{ns}/deployments/d/status"
    await api.ok("PATCH", path, {"status": status}, content_type="application/merge-patch+json")
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/d", "--timeout=20s")


async def test_wait(api: Api, ns: str, kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=manifest({**pod("p"), "apiVersion": "v1", "kind": "Pod"}))
    outcome: list[str] = []
    waiter = threading.Thread(
        target=lambda: outcome.append(kubectl("wait", "pod/p", "--for=condition=Ready", "--timeout=20s"))
    )
    waiter.start()
    patch = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    path = f"/api/v1/namespaces/{ns}/pods/p/status"
    await api.ok("PATCH", path, patch, content_type="application/strategic-merge-patch+json")
    waiter.join(30)
    assert outcome == ["pod/p condition met\n"]


async def test_delete_waits_until_it_is_gone(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "a")
    assert 'configmap "a" deleted' in kubectl("delete", "configmap", "a")
    assert "NotFound" in kubectl("get", "configmap", "a", fails=True)
    assert kubectl("delete", "configmap", "a", "--ignore-not-found") == ""


async def test_watch_prints_changes(api: Api, ns: str, kubeconfig: Path, kubectl: Kubectl, tmp_path: Path) -> None:
    command = ["kubectl", "--kubeconfig", str(kubeconfig), "-n", ns, "--cache-dir", str(tmp_path)]
    kubectl("create", "secret", "generic", "first")
    process = await asyncio.create_subprocess_exec(*command, "get", "secrets", "-w", stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert (await process.stdout.readline()).split()[0] == b"NAME"
        assert (await process.stdout.readline()).split()[0] == b"first"
        await api.ok("POST", f"/api/v1/namespaces/{ns}/secrets", {"metadata": {"name": "second"}})
        assert (await process.stdout.readline()).split()[0] == b"second"
    finally:
        process.terminate()
        await process.wait()


async def test_access_questions(kubectl: Kubectl, ns: str) -> None:
    assert kubectl("auth", "can-i", "create", "pods") == "yes\n"
    account = f"system:serviceaccount:{ns}:default"
    assert kubectl("auth", "can-i", "create", "pods", "--as", account, fails=True).startswith("no")


async def test_api_resources(kubectl: Kubectl) -> None:
    shown = kubectl("api-resources")
    assert "deployments" in shown
    assert "endpointslices" in shown


async def test_explain(kubectl: Kubectl) -> None:
    assert "rollingUpdate" in kubectl("explain", "deployment.spec.strategy")


async def test_diff(kubectl: Kubectl) -> None:
    objects = manifest(deployment("d"))
    kubectl("apply", "-f", "-", stdin=objects)
    assert kubectl("diff", "-f", "-", stdin=objects) == ""


async def test_errors_of_streams(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=manifest({**pod("p"), "apiVersion": "v1", "kind": "Pod"}))
    assert "does not have a host assigned" in kubectl("exec", "p", "--", "ls", fails=True)
    assert 'pods "nope" not found' in kubectl("logs", "nope", fails=True)
