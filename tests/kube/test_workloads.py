"""What the controllers of a real control plane do with Deployments, Services and owners, without a kubelet."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from konverge.errors import Invalid
from konverge.kube.client import KubeClient
from konverge.kube.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICES,
    Object,
)

from .objects import build_binding, build_deployment, build_running_status, build_service
from .waiting import wait_for

pytestmark = pytest.mark.kube


async def test_deployment_becomes_pending_pods(client: KubeClient, namespace: str) -> None:
    await client.create(DEPLOYMENTS, build_deployment("web", namespace, replicas=2))
    pods = await wait_for(client, PODS, namespace, lambda pods: len(pods) == 2)
    assert {pod["status"]["phase"] for pod in pods} == {"Pending"}
    (replica_set,) = await client.list_all(REPLICA_SETS, namespace)
    assert {pod["metadata"]["ownerReferences"][0]["uid"] for pod in pods} == {replica_set["metadata"]["uid"]}
    assert replica_set["metadata"]["ownerReferences"][0]["kind"] == "Deployment"


@pytest.fixture
async def node(client: KubeClient, namespace: str) -> AsyncIterator[str]:
    """A Node: the EndpointSlice controller leaves Pods out whose Node it does not know."""
    await client.create(NODES, {"metadata": {"name": namespace}})
    yield namespace
    await client.delete(NODES, namespace)


async def test_endpoint_slice_follows_written_pod_status(client: KubeClient, namespace: str, node: str) -> None:
    await client.create(DEPLOYMENTS, build_deployment("web", namespace))
    await client.create(SERVICES, build_service("web", namespace))
    (pod,) = await wait_for(client, PODS, namespace, lambda pods: len(pods) == 1)
    name = pod["metadata"]["name"]
    await client.request("POST", PODS.path(namespace, name, "binding"), body=build_binding(name, node))
    await client.patch(PODS, name, build_running_status("10.244.7.9"), namespace, subresource="status")
    slices = await wait_for(client, ENDPOINT_SLICES, namespace, lambda found: _ready(found) == ["10.244.7.9"])
    (endpoint,) = slices[0]["endpoints"]
    assert endpoint["targetRef"]["name"] == name
    assert slices[0]["ports"] == [{"name": "", "port": 8080, "protocol": "TCP"}]
    status = build_running_status("10.244.7.9", ready=False)
    await client.patch(PODS, name, status, namespace, subresource="status")
    await wait_for(client, ENDPOINT_SLICES, namespace, lambda found: _ready(found) == [])


def _ready(slices: list[Object]) -> list[str]:
    endpoints = [endpoint for found in slices for endpoint in found.get("endpoints") or ()]
    return [address for item in endpoints if item["conditions"]["ready"] for address in item["addresses"]]


async def test_loopback_endpoint_is_refused(client: KubeClient, namespace: str) -> None:
    body = {
        "metadata": {"name": "loop", "namespace": namespace},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.1.5"]}],
        "ports": [],
    }
    with pytest.raises(Invalid, match=r"127\.0\.1\.5"):
        await client.create(ENDPOINT_SLICES, body)


async def test_deleting_a_deployment_collects_its_pods(client: KubeClient, namespace: str) -> None:
    await client.create(DEPLOYMENTS, build_deployment("web", namespace))
    await wait_for(client, PODS, namespace, lambda pods: len(pods) == 1)
    await client.delete(DEPLOYMENTS, "web", namespace)
    await wait_for(client, REPLICA_SETS, namespace, lambda found: not found)
    await wait_for(client, PODS, namespace, lambda found: not found)


async def test_orphaning_keeps_the_dependents(client: KubeClient, namespace: str) -> None:
    await client.create(DEPLOYMENTS, build_deployment("web", namespace))
    await wait_for(client, PODS, namespace, lambda pods: len(pods) == 1)
    await client.delete(DEPLOYMENTS, "web", namespace, propagation="Orphan")
    await wait_for(client, DEPLOYMENTS, namespace, lambda found: not found)
    (replica_set,) = await wait_for(client, REPLICA_SETS, namespace, lambda found: _orphaned(found))
    assert replica_set["spec"]["replicas"] == 1


def _orphaned(found: list[Object]) -> bool:
    return bool(found) and not found[0]["metadata"].get("ownerReferences")


async def test_owned_config_map_goes_with_its_owner(client: KubeClient, namespace: str) -> None:
    owner = await client.create(CONFIG_MAPS, {"metadata": {"name": "owner", "namespace": namespace}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    metadata = {"name": "owned", "namespace": namespace, "ownerReferences": [reference]}
    await client.create(CONFIG_MAPS, {"metadata": metadata})
    await client.delete(CONFIG_MAPS, "owner", namespace)
    await wait_for(client, CONFIG_MAPS, namespace, lambda found: "owned" not in _names(found))


def _names(found: list[Object]) -> set[str]:
    return {item["metadata"]["name"] for item in found}
