"""EndpointSlices, load balancer addresses and disruption budgets against a cluster in memory."""

from typing import Any

import pytest
from conftest import Settle
from fake_cluster import FakeCluster, deployment, template

from konverge.kube.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICES,
    Object,
)
from konverge.lab.controllers.loadbalancers import address_of


def service(name: str = "web", **spec: Any) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": {"team": "x"}},
        "spec": {"selector": {"app": "web"}, "clusterIP": "127.20.16.9", "ports": ports, **spec},
    }


async def pod(cluster: FakeCluster, name: str, address: str, *, ready: bool = True, **spec: Any) -> None:
    body = {"apiVersion": "v1", "kind": "Pod", **template("web", "one")}
    body["metadata"] = {**body["metadata"], "name": name, "namespace": "default"}
    body["spec"] = {**body["spec"], **spec}
    await cluster.create(PODS, body)
    cluster.make_ready(cluster.one(PODS, name), ready, podIP=address)


def endpoints(cluster: FakeCluster) -> dict[str, Object]:
    return {
        endpoint["addresses"][0]: endpoint["conditions"]
        for item in cluster.all(ENDPOINT_SLICES)
        for endpoint in item["endpoints"]
    }


async def test_slice_follows_pods_through_ready_terminating_and_gone(cluster: FakeCluster, settle: Settle) -> None:
    await cluster.create(SERVICES, service())
    await settle()
    (placeholder,) = cluster.all(ENDPOINT_SLICES)
    assert placeholder["endpoints"] == []
    await pod(cluster, "a", "10.0.0.1")
    await pod(cluster, "b", "10.0.0.2", ready=False)
    await settle()
    (item,) = cluster.all(ENDPOINT_SLICES)
    assert item["metadata"]["labels"] == {
        "team": "x",
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    assert item["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert endpoints(cluster)["10.0.0.1"] == {"ready": True, "serving": True, "terminating": False}
    assert endpoints(cluster)["10.0.0.2"] == {"ready": False, "serving": False, "terminating": False}
    await cluster.delete(PODS, "a")
    await settle()
    assert endpoints(cluster)["10.0.0.1"] == {"ready": False, "serving": True, "terminating": True}
    cluster.remove(PODS, "a")
    await settle()
    assert list(endpoints(cluster)) == ["10.0.0.2"]


async def test_unready_addresses_are_ready_where_the_service_publishes_them(
    cluster: FakeCluster, settle: Settle
) -> None:
    await cluster.create(SERVICES, service(publishNotReadyAddresses=True, clusterIP="None"))
    await pod(cluster, "a", "10.0.0.1", ready=False)
    await settle()
    assert endpoints(cluster)["10.0.0.1"] == {"ready": True, "serving": False, "terminating": False}
    (item,) = cluster.all(ENDPOINT_SLICES)
    assert item["metadata"]["labels"]["service.kubernetes.io/headless"] == ""


async def test_named_target_ports_split_pods_into_slices(cluster: FakeCluster, settle: Settle) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]
    await cluster.create(SERVICES, service(ports=ports))
    for name, number in (("a", 8001), ("b", 8002)):
        containers = [{"name": "c", "image": "i", "ports": [{"name": "web", "containerPort": number}]}]
        await pod(cluster, name, f"10.0.0.{number - 8000}", containers=containers)
    await pod(cluster, "c", "10.0.0.9")
    await settle()
    found = {item["ports"][0]["port"]: item["endpoints"][0]["addresses"] for item in cluster.all(ENDPOINT_SLICES)}
    assert found == {8001: ["10.0.0.1"], 8002: ["10.0.0.2"]}


async def test_slices_hold_100_endpoints_and_one_change_is_one_write(cluster: FakeCluster, settle: Settle) -> None:
    await cluster.create(SERVICES, service())
    for number in range(230):
        await pod(cluster, f"p{number}", f"10.0.{number // 200}.{number % 200 + 1}")
    await settle()
    sizes = sorted(len(item["endpoints"]) for item in cluster.all(ENDPOINT_SLICES))
    assert sizes == [30, 100, 100]
    assert len(endpoints(cluster)) == 230
    cluster.writes.clear()
    cluster.make_ready(cluster.one(PODS, "p7"), ready=False, podIP="10.0.0.8")
    await settle()
    assert [write[:2] for write in cluster.writes] == [("replace", "endpointslices")]
    assert endpoints(cluster)["10.0.0.8"]["ready"] is False


async def test_change_that_no_endpoint_depends_on_writes_nothing(cluster: FakeCluster, settle: Settle) -> None:
    await cluster.create(SERVICES, service())
    await pod(cluster, "a", "10.0.0.1")
    await settle()
    cluster.writes.clear()
    cluster.change(PODS, "a", metadata={"annotations": {"x": "y"}})
    await settle()
    assert cluster.writes == []


async def test_service_without_selector_gets_no_slice(cluster: FakeCluster, settle: Settle) -> None:
    await cluster.create(SERVICES, service(selector=None))
    await cluster.create(SERVICES, service("alias", type="ExternalName"))
    await settle()
    assert cluster.all(ENDPOINT_SLICES) == []


async def test_load_balancer_addresses_are_distinct_and_given_back(cluster: FakeCluster, settle: Settle) -> None:
    for name in ("a", "b", "c"):
        await cluster.create(SERVICES, service(name, type="LoadBalancer"))
    await cluster.create(SERVICES, service("plain"))
    await settle()
    given = {name: address_of(cluster.one(SERVICES, name)) for name in ("a", "b", "c")}
    assert sorted(given.values()) == ["127.20.8.2", "127.20.8.3", "127.20.8.4"]  # type: ignore[type-var]
    assert address_of(cluster.one(SERVICES, "plain")) is None
    cluster.change(SERVICES, "a", spec={"type": "ClusterIP"})
    await settle()
    assert address_of(cluster.one(SERVICES, "a")) is None
    await cluster.create(SERVICES, service("d", type="LoadBalancer"))
    await settle()
    assert address_of(cluster.one(SERVICES, "d")) == given["a"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"minAvailable": 3}, (3, 1)),
        ({"maxUnavailable": 1}, (3, 1)),
        ({"maxUnavailable": "50%"}, (2, 2)),
        ({"minAvailable": "100%"}, (4, 0)),
    ],
)
async def test_budget_counts_healthy_pods(
    cluster: FakeCluster, settle: Settle, rule: dict[str, Any], expected: tuple[int, int]
) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=4))
    await settle()
    for item in cluster.all(PODS):
        cluster.make_ready(item)
    body = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, **rule},
    }
    await cluster.create(POD_DISRUPTION_BUDGETS, body)
    await settle()
    status = cluster.one(POD_DISRUPTION_BUDGETS, "web")["status"]
    assert (status["desiredHealthy"], status["disruptionsAllowed"]) == expected
    assert (status["expectedPods"], status["currentHealthy"]) == (4, 4)
    cluster.make_ready(cluster.all(PODS)[0], ready=False)
    await settle()
    status = cluster.one(POD_DISRUPTION_BUDGETS, "web")["status"]
    assert status["disruptionsAllowed"] == max(0, expected[1] - 1)


async def test_noted_eviction_counts_against_the_budget_until_its_pod_is_gone(
    cluster: FakeCluster, settle: Settle
) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=3))
    await settle()
    for item in cluster.all(PODS):
        cluster.make_ready(item)
    name = cluster.all(PODS)[0]["metadata"]["name"]
    body = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "maxUnavailable": 1},
    }
    await cluster.create(POD_DISRUPTION_BUDGETS, body)
    await settle()
    cluster.change(POD_DISRUPTION_BUDGETS, "web", status={"disruptedPods": {name: "2999-01-01T00:00:00Z"}})
    await settle()
    assert cluster.one(POD_DISRUPTION_BUDGETS, "web")["status"]["disruptionsAllowed"] == 0
    await cluster.delete(PODS, name)
    cluster.remove(PODS, name)
    await settle()
    assert "disruptedPods" not in cluster.one(POD_DISRUPTION_BUDGETS, "web")["status"]
