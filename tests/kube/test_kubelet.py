"""The lab's kubelet runs Pods of a real control plane: Deployment, EndpointSlice, exec and logs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from konverge.kube.client import KubeClient
from konverge.kube.resources import DEPLOYMENTS, ENDPOINT_SLICES, PODS, SERVICES, Object
from konverge.lab.realplane import PlaneSettings, RealControlPlane

from .objects import build_deployment, build_service
from .planes import POD_ADDRESS, Plane, in_private_network
from .waiting import wait_for

pytestmark = [pytest.mark.kube, pytest.mark.lab, pytest.mark.usefixtures("assets_or_skip")]
SERVER = "exec python3 -m http.server 8080 --bind $KONVERGE_LAB_POD_IP"


@pytest.fixture
async def cluster() -> AsyncIterator[tuple[Plane, KubeClient]]:
    """A control plane of its own: the kubelet schedules every Pod it sees."""
    if not in_private_network():
        pytest.skip("Pod addresses need a private network: python tools/test_kube.py")
    async with RealControlPlane(PlaneSettings(bind=POD_ADDRESS)) as plane, plane.client() as client:
        kubelet = await _start_kubelet(plane.directory, plane.kubeconfig)
        try:
            yield Plane(plane.kubeconfig, plane.directory, plane.server), client
        finally:
            kubelet.terminate()
            await kubelet.wait()


async def _start_kubelet(directory: Path, kubeconfig: Path) -> asyncio.subprocess.Process:
    options = {
        "--kubeconfig": kubeconfig,
        "--dir": directory / "kubelet",
        "--address": POD_ADDRESS,
        "--pod-cidr": "10.244.64.0/18",
        "--ca-cert": directory / "ca.crt",
        "--ca-key": directory / "ca.key",
    }
    flags = [str(word) for pair in options.items() for word in pair]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "konverge.lab.kubelet", *flags, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        line = await process.stdout.readline()
    assert line, "the kubelet ended before it was ready"
    assert json.loads(line)["ready"]
    return process


def build_web() -> Object:
    """Return a Deployment of two real web servers."""
    body = build_deployment("web", "default", replicas=2)
    container = body["spec"]["template"]["spec"]["containers"][0]
    container |= {"image": "lab/host", "command": ["sh", "-c", SERVER]}
    container["readinessProbe"] = {"httpGet": {"port": 8080}, "periodSeconds": 1}
    return body


async def test_pods_run_and_are_reached(cluster: tuple[Plane, KubeClient]) -> None:
    plane, client = cluster
    await client.create(DEPLOYMENTS, build_web())
    await client.create(SERVICES, build_service("web", "default"))
    pods = await wait_for(client, PODS, "default", lambda found: len(found) == 2 and all(map(_is_ready, found)))
    addresses = {pod["status"]["podIP"] for pod in pods}
    labels = "kubernetes.io/service-name=web"
    await wait_for(client, ENDPOINT_SLICES, "default", lambda found: _ready(found) == addresses, labels)
    for address in addresses:
        reader, writer = await asyncio.open_connection(address, 8080)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert b"200 OK" in await reader.readline()
        writer.close()
        await writer.wait_closed()
    name = pods[0]["metadata"]["name"]
    said = await asyncio.to_thread(plane.kubectl, "exec", name, "--", "sh", "-c", "echo $KONVERGE_LAB_POD_NAME")
    assert said.strip() == name
    assert "GET /" in await asyncio.to_thread(plane.kubectl, "logs", name)


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _ready(slices: list[Object]) -> set[str]:
    endpoints = [endpoint for found in slices for endpoint in found.get("endpoints") or ()]
    return {address for item in endpoints if item["conditions"]["ready"] for address in item["addresses"]}
