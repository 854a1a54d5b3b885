"""Both helms install, upgrade and uninstall the chart on a real API server that enforces "restricted" pods."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import helm as tool
import pytest

from konverge.kube.client import KubeClient
from konverge.kube.resources import DEPLOYMENTS, NAMESPACES, PODS

from .planes import Plane
from .waiting import wait_for

pytestmark = pytest.mark.kube
CHART = Path(__file__).parents[2] / "charts" / "konverge"
RELEASE = "edge"
Run = Callable[..., str]


@pytest.fixture(params=["3", "4"], ids=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, plane: Plane, tmp_path: Path) -> Run:
    """Run helm against the plane, with a home of its own."""
    path = tool.find_helms().get(request.param)
    if path is None:
        pytest.skip(f"helm {request.param} is not cached: python tools/helm.py --fetch")
    environment = {"KUBECONFIG": str(plane.kubeconfig), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def run(*arguments: str) -> str:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=110, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
async def restricted(client: KubeClient, namespace: str) -> str:
    """The namespace, with the strictest Pod Security Standard enforced."""
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    await client.patch(NAMESPACES, namespace, label)
    return namespace


async def test_install_upgrade_uninstall(client: KubeClient, restricted: str, helm: Run) -> None:
    options = (RELEASE, str(CHART), "--namespace", restricted, "--set", "gateway.service.type=ClusterIP")
    notes = helm("install", *options)
    assert "konverge crds | kubectl apply" in notes
    expected = {"controller": 2, "gateway": 3, "prefect": 1, "worker": 1}
    pods = await wait_for(client, PODS, restricted, lambda pods: len(pods) == sum(expected.values()))
    gateways = [pod for pod in pods if pod["metadata"]["name"].startswith(f"{RELEASE}-gateway")]
    assert [gate["conditionType"] for gate in gateways[0]["spec"]["readinessGates"]] == ["konverge.dev/configured"]
    before = await _read_generations(client, restricted)
    assert set(before) == {f"{RELEASE}-{name}" for name in expected}
    helm("upgrade", *options)
    assert await _read_generations(client, restricted) == before
    helm("uninstall", RELEASE, "--namespace", restricted)
    await wait_for(client, DEPLOYMENTS, restricted, lambda found: not found)
    await wait_for(client, PODS, restricted, lambda found: not found)


async def _read_generations(client: KubeClient, namespace: str) -> dict[str, int]:
    deployments = await client.list_all(DEPLOYMENTS, namespace)
    return {item["metadata"]["name"]: item["metadata"]["generation"] for item in deployments}


def test_rights_are_enough_and_not_more(plane: Plane, restricted: str, helm: Run) -> None:
    helm("install", RELEASE, str(CHART), "--namespace", restricted)
    account = f"system:serviceaccount:{restricted}:{RELEASE}"

    def can(role: str, verb: str, resource: str, namespace: str) -> bool:
        kind, _, part = resource.partition("/")
        arguments = ["auth", "can-i", verb, kind, "-n", namespace, f"--as={account}-{role}"]
        arguments += [f"--subresource={part}"] if part else []
        return plane.try_kubectl(*arguments).stdout.strip() == "yes"

    for role in ("controller", "worker"):
        assert can(role, "list", "secrets", "default")
        assert can(role, "watch", "ingresses.networking.k8s.io", "default")
        assert can(role, "patch", "pods/status", restricted)
        assert can(role, "create", "pods/exec", restricted)
        assert not can(role, "create", "secrets", "default")
        assert not can(role, "create", "pods/exec", "default")
        assert not can(role, "get", "nodes", restricted)
    assert can("worker", "patch", "deployments.apps", restricted)
    assert can("worker", "create", "pods/portforward", restricted)
    assert not can("worker", "delete", "deployments.apps", restricted)
    assert not can("controller", "update", "secrets", restricted)
    assert not can("controller", "patch", "deployments.apps", restricted)
    assert not can("worker", "patch", "deployments.apps", "default")
    status = json.loads(helm("status", RELEASE, "--namespace", restricted, "-o", "json"))
    assert status["info"]["status"] == "deployed"
    helm("uninstall", RELEASE, "--namespace", restricted)
