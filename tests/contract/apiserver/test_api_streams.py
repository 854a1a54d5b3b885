"""Exec, logs, port-forward and eviction as far as they go without a kubelet."""

from __future__ import annotations

from api_wire import Api, pod

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Protocol": "v4.channel.k8s.io",
}


async def test_logs_of_a_pod_that_does_not_exist(api: Api, ns: str) -> None:
    answer = await api.send("GET", f"/api/v1/namespaces/{ns}/pods/nope/log")
    assert (answer.status, answer.message) == (404, 'pods "nope" not found')


async def test_logs_of_a_container_that_does_not_exist(api: Api, ns: str) -> None:
    await api.ok("POST", f"/api/v1/namespaces/{ns}/pods", pod("p"))
    answer = await api.send("GET", f"/api/v1/namespaces/{ns}/pods/p/log?container=nope")
    assert (answer.status, answer.reason) == (400, "BadRequest")
    assert answer.message == "container nope is not valid for pod p"


async def test_logs_need_a_container_where_there_are_two(api: Api, ns: str) -> None:
    body = pod("p")
    body["spec"]["containers"].append({"name": "d", "image": "example.org/x:1"})
    await api.ok("POST", f"/api/v1/namespaces/{ns}/pods", body)
    answer = await api.send("GET", f"/api/v1/namespaces/{ns}/pods/p/log")
    assert answer.message == "a container name must be specified for pod p, choose one of: [c d]"


async def test_exec_in_a_pod_without_a_node(api: Api, ns: str) -> None:
    await api.ok("POST", f"/api/v1/namespaces/{ns}/pods", pod("p"))
    path = f"/api/v1/namespaces/{ns}/pods/p/exec?command=ls&stdout=true"
    answer = await api.send("GET", path, headers=UPGRADE)
    assert (answer.status, answer.message) == (400, "pod p does not have a host assigned")


async def test_exec_in_a_container_that_does_not_exist(api: Api, ns: str) -> None:
    await api.ok("POST", f"/api/v1/namespaces/{ns}/pods", pod("p"))
    path = f"/api/v1/namespaces/{ns}/pods/p/exec?command=ls&stdout=true&container=nope"
    answer = await api.send("GET", path, headers=UPGRADE)
    assert (answer.status, answer.message) == (400, "container nope is not valid for pod p")


async def test_eviction_respects_the_budget(api: Api, ns: str) -> None:
    body = pod("p")
    body["metadata"]["labels"] = {"app": "p"}
    await api.ok("POST", f"/api/v1/namespaces/{ns}/pods", body)
    status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    await api.ok(
        "PATCH",
        f"/api/v1/namespaces/{ns}/pods/p/status",
        status,
        content_type="application/strategic-merge-patch+json",
    )
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "p"}}}
    budgets = f"/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets"
    await api.ok("POST", budgets, {"metadata": {"name": "b"}, "spec": spec})
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p", "namespace": ns}}
    refused = await api.send("POST", f"/api/v1/namespaces/{ns}/pods/p/eviction", eviction)
    assert (refused.status, refused.reason) == (429, "TooManyRequests")
    assert refused.message == "Cannot evict pod as it would violate the pod's disruption budget."
    assert refused.body["details"]["causes"][0]["reason"] == "DisruptionBudget"
    await api.ok("DELETE", f"{budgets}/b")
    done = await api.send("POST", f"/api/v1/namespaces/{ns}/pods/p/eviction", eviction)
    assert (done.status, done.body["status"]) == (201, "Success")
    assert (await api.send("GET", f"/api/v1/namespaces/{ns}/pods/p")).status == 404


async def test_binding_gives_a_pod_its_node(api: Api, ns: str) -> None:
    await api.ok("POST", f"/api/v1/namespaces/{ns}/pods", pod("p"))
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "p"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "conformance-no-such-node"},
    }
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/pods/p/binding", binding)
    assert answer.status == 201, answer.body
    bound = await api.ok("GET", f"/api/v1/namespaces/{ns}/pods/p")
    assert bound["spec"]["nodeName"] == "conformance-no-such-node"
    again = await api.send("POST", f"/api/v1/namespaces/{ns}/pods/p/binding", binding)
    assert again.status == 409
    await api.ok("DELETE", f"/api/v1/namespaces/{ns}/pods/p", {"gracePeriodSeconds": 0})
