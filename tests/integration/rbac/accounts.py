"""Kubeconfigs of service accounts, and the parts of the chart that a lab can run."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from konverge.cli.demo.staging import NAMESPACE
from konverge.kube.client import KubeClient
from konverge.kube.resources import Object

ROOT = Path(__file__).parents[3]
TOKEN_SECONDS = 3600


async def write_account(kube: KubeClient, admin: Path, account: str, namespace: str, path: Path) -> Path:
    """Write a kubeconfig with a token of a service account, as a pod of that account has one."""
    place = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": TOKEN_SECONDS},
    }
    token = orjson.loads(await kube.request("POST", place, body=body))["status"]["token"]
    await asyncio.to_thread(_write_kubeconfig, admin, token, path)
    return path


def _write_kubeconfig(admin: Path, token: str, path: Path) -> None:
    config: Any = yaml.safe_load(admin.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)


def runs_in_a_lab(body: Object) -> bool:
    """Tell whether an object of the chart is for this run: Prefect is elsewhere, and flows are started by hand."""
    name = body["metadata"]["name"]
    workload = body["kind"] in ("Deployment", "Pod")
    return not (workload and name.endswith(("-prefect", "-worker", "-test")))


def find_helm() -> Path:
    """Return a cached helm, or skip."""
    spec = importlib.util.spec_from_file_location("helm_tool", ROOT / "tools" / "helm.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    helms: dict[str, Path] = tool.find_helms()
    if not helms:
        pytest.skip("no helm is cached: make helm")
    return helms[max(helms)]


def render_chart(helm: Path, values: dict[str, Any]) -> list[Object]:
    """Return the objects of the chart with values."""
    words = ["template", "rbac", str(ROOT / "charts" / "konverge"), "--namespace", NAMESPACE, "--values", "-"]
    text = yaml.safe_dump(values)
    done = subprocess.run([helm, *words], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [body for body in yaml.safe_load_all(done.stdout) if body]
