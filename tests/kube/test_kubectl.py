"""kubectl works against the real control plane, and RBAC is on."""

from __future__ import annotations

import json

import pytest

from .planes import Plane

pytestmark = pytest.mark.kube
CONFIG_MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: sample}
data: {colour: blue}
"""


def test_version_is_semver_with_a_build(plane: Plane) -> None:
    version = json.loads(plane.kubectl("version", "-o", "json"))["serverVersion"]
    assert version["gitVersion"].startswith("v1.")
    assert version["gitTreeState"] == "clean"


def test_apply_get_delete(plane: Plane, namespace: str) -> None:
    plane.kubectl("apply", "-n", namespace, "-f", "-", stdin=CONFIG_MAP)
    assert plane.kubectl("get", "configmap", "sample", "-n", namespace, "-o", "jsonpath={.data.colour}") == "blue"
    again = plane.kubectl("apply", "--server-side", "--force-conflicts", "-n", namespace, "-f", "-", stdin=CONFIG_MAP)
    assert "serverside-applied" in again
    plane.kubectl("delete", "configmap", "sample", "-n", namespace)
    assert "NotFound" in plane.try_kubectl("get", "configmap", "sample", "-n", namespace).stderr


def test_deployment_shows_its_pods(plane: Plane, namespace: str) -> None:
    plane.kubectl("create", "deployment", "web", "--image=konverge/echo", "-n", namespace)
    plane.kubectl("wait", "--for=create", "pod", "-l", "app=web", "-n", namespace, "--timeout=30s")
    assert "Pending" in plane.kubectl("get", "pods", "-l", "app=web", "-n", namespace)


def test_service_account_token_has_no_rights(plane: Plane, namespace: str) -> None:
    plane.kubectl("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=30s")
    token = plane.kubectl("create", "token", "default", "-n", namespace).strip()
    denied = plane.try_kubectl(
        f"--server={plane.server}",
        f"--certificate-authority={plane.directory / 'ca.crt'}",
        "--kubeconfig=/dev/null",
        f"--token={token}",
        "get",
        "secrets",
        "-n",
        namespace,
    )
    assert f'User "system:serviceaccount:{namespace}:default" cannot list resource "secrets"' in denied.stderr
