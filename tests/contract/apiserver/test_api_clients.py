"""The clients that the project and its users bring along."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from api_wire import pod
from kubernetes import aio, client, config, dynamic, watch

from konverge.errors import Conflict, NotFound
from konverge.kube.client import KubeClient
from konverge.kube.resources import CONFIG_MAPS, PODS


@pytest.fixture
def sync_client(kubeconfig: Path) -> client.ApiClient:
    return config.new_client_from_config(str(kubeconfig))


def use_typed(api_client: client.ApiClient, ns: str) -> None:
    core = client.CoreV1Api(api_client)
    made = core.create_namespaced_config_map(ns, {"metadata": {"name": "a"}, "data": {"x": "1"}})
    assert made.metadata.uid
    core.create_namespaced_pod(ns, pod("p"))
    found = core.list_namespaced_pod(ns)
    assert [item.metadata.name for item in found.items] == ["p"]
    assert found.items[0].status.phase == "Pending"
    core.create_namespaced_service(ns, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    assert core.read_namespaced_service("s", ns).spec.cluster_ip
    assert client.VersionApi(api_client).get_code().git_version.startswith("v1.")
    with pytest.raises(client.ApiException) as caught:
        core.read_namespaced_secret("nope", ns)
    assert caught.value.status == 404


async def test_official_client(sync_client: client.ApiClient, ns: str) -> None:
    await asyncio.to_thread(use_typed, sync_client, ns)


def use_watch(api_client: client.ApiClient, ns: str) -> list[tuple[str, str]]:
    core = client.CoreV1Api(api_client)
    core.create_namespaced_secret(ns, {"metadata": {"name": "a"}})
    seen = []
    for event in watch.Watch().stream(core.list_namespaced_secret, ns, timeout_seconds=10):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            break
        core.delete_namespaced_secret("a", ns)
    return seen


async def test_official_watch(sync_client: client.ApiClient, ns: str) -> None:
    seen = await asyncio.to_thread(use_watch, sync_client, ns)
    assert seen == [("ADDED", "a"), ("DELETED", "a")]


def use_dynamic(api_client: client.ApiClient, ns: str) -> None:
    resources = dynamic.DynamicClient(api_client).resources
    deployments = resources.get(api_version="apps/v1", kind="Deployment")
    assert deployments.name == "deployments"
    maps = resources.get(api_version="v1", kind="ConfigMap")
    maps.create(namespace=ns, body={"metadata": {"name": "d"}, "data": {"x": "1"}})
    patched = maps.patch(
        namespace=ns, name="d", body={"data": {"y": "2"}}, content_type="application/merge-patch+json"
    )
    assert patched.data.to_dict() == {"x": "1", "y": "2"}


async def test_dynamic_client(sync_client: client.ApiClient, ns: str) -> None:
    await asyncio.to_thread(use_dynamic, sync_client, ns)


async def test_asyncio_client(kubeconfig: Path, ns: str) -> None:
    api_client = await aio.config.new_client_from_config(str(kubeconfig))
    async with api_client:
        core = aio.client.CoreV1Api(api_client)
        await core.create_namespaced_config_map(ns, {"metadata": {"name": "a"}})
        names = [item.metadata.name for item in (await core.list_namespaced_config_map(ns)).items]
        assert "a" in names


async def test_our_client(kubeconfig: Path, ns: str) -> None:
    async with await KubeClient.connect(kubeconfig) as kube:
        made = await kube.create(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": ns}, "data": {"x": "1"}})
        stale: dict[str, Any] = {**made, "data": {"x": "2"}}
        await kube.replace(CONFIG_MAPS, stale)
        with pytest.raises(Conflict):
            await kube.replace(CONFIG_MAPS, stale)
        with pytest.raises(NotFound):
            await kube.get(PODS, "nope", ns)
        items, version = await kube.list_at(CONFIG_MAPS, ns)
        assert {item["metadata"]["name"] for item in items} >= {"a"}
        await kube.patch(CONFIG_MAPS, "a", {"data": {"y": "1"}}, ns)
        async for kind, obj in kube.watch(CONFIG_MAPS, ns, version=version, timeout=10):
            if kind != "BOOKMARK":
                assert (kind, obj["metadata"]["name"], obj["data"]) == ("MODIFIED", "a", {"x": "2", "y": "1"})
                break
