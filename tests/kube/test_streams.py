"""The real API server reaches the kubelet of a Pod's node over mTLS, for logs, exec and port-forward."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from konverge.kube.client import KubeClient
from konverge.kube.resources import NODES, PODS, SERVICE_ACCOUNTS, Object

from .fake_kubelet import ERROR, STDIN, STDOUT, FakeKubelet, serve_kubelet
from .objects import build_pod, build_running_status
from .planes import POD_ADDRESS, Plane, in_private_network
from .waiting import wait_for

pytestmark = pytest.mark.kube


@pytest.fixture
async def kubelet(plane: Plane, client: KubeClient, namespace: str) -> AsyncIterator[FakeKubelet]:
    """A node named after the namespace, served by a fake kubelet, with a running Pod ``target``."""
    address = POD_ADDRESS if in_private_network() else "127.0.0.1"
    async with serve_kubelet(plane.directory, address) as kubelet:
        await client.create(NODES, {"metadata": {"name": namespace}})
        await client.patch(NODES, namespace, _describe_node(kubelet), subresource="status")
        await wait_for(client, SERVICE_ACCOUNTS, namespace, lambda found: bool(found))
        await client.create(PODS, build_pod("target", namespace, namespace))
        status = build_running_status("10.244.1.1")
        await client.patch(PODS, "target", status, namespace, subresource="status")
        yield kubelet
        await client.delete(PODS, "target", namespace, grace=0)
        await client.delete(NODES, namespace)


def _describe_node(kubelet: FakeKubelet) -> Object:
    return {
        "status": {
            "addresses": [{"type": "InternalIP", "address": kubelet.address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.port}},
        }
    }


async def test_logs(plane: Plane, namespace: str, kubelet: FakeKubelet) -> None:
    text = await asyncio.to_thread(plane.kubectl, "logs", "target", "-n", namespace)
    assert text == "a line of the log\n"
    assert kubelet.paths[0].startswith(f"/containerLogs/{namespace}/target/main")
    assert kubelet.callers == ["CN=kube-apiserver-kubelet-client,O=system:masters"]


@pytest.mark.parametrize(
    ("subresource", "query", "expected"),
    [
        ("exec", "command=cat&stdin=true&stdout=true&container=main", "/exec/{}/target/main?command=cat"),
        ("portforward", "ports=8080", "/portForward/{}/target"),
    ],
)
async def test_upgraded_stream(
    client: KubeClient, namespace: str, kubelet: FakeKubelet, subresource: str, query: str, expected: str
) -> None:
    url = f"{client.server}{PODS.path(namespace, 'target', subresource)}?{query}"
    async with (
        asyncio.timeout(30),
        client.session().ws_connect(url, protocols=("v4.channel.k8s.io",)) as socket,
    ):
        await socket.send_bytes(bytes([STDIN]) + b"hello")
        assert (await socket.receive()).data == bytes([STDOUT]) + b"heard hello"
        end = await socket.receive()
    assert end.data[0] == ERROR
    assert b"Success" in end.data
    assert kubelet.paths[0].startswith(expected.format(namespace))
