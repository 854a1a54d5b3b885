"""What the server refuses, field by field."""

from __future__ import annotations

from typing import Any

import pytest
from api_wire import MERGE, Api, configmap, deployment, pod


@pytest.mark.parametrize("name", ["Upper", "under_score", "-dash", "x" * 254])
async def test_names(api: Api, ns: str, name: str) -> None:
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/configmaps", configmap(name))
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert ("FieldValueInvalid", "metadata.name") in answer.causes


async def test_labels(api: Api, ns: str) -> None:
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/configmaps", configmap("a", labels={"k": "bad value"}))
    assert answer.causes == [("FieldValueInvalid", "metadata.labels")]


async def test_deployment_selector_must_match(api: Api, ns: str) -> None:
    body = deployment("d")
    body["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    answer = await api.send("POST", f"/apis/apps/v1/namespaces/{ns}/deployments", body)
    assert answer.status == 422
    assert answer.causes == [("FieldValueInvalid", "spec.template.metadata.labels")]
    assert answer.message.startswith('Deployment.apps "d" is invalid: spec.template.metadata.labels: Invalid value: ')


async def test_deployment_selector_is_immutable(api: Api, ns: str) -> None:
    path = f"/apis/apps/v1/namespaces/{ns}/deployments"
    await api.ok("POST", path, deployment("d"))
    labels = {"app": "e"}
    patch = {"spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}}
    answer = await api.send("PATCH", f"{path}/d", patch, content_type=MERGE)
    assert answer.causes == [("FieldValueInvalid", "spec.selector")]
    assert answer.message.endswith("field is immutable")


async def test_containers_are_required(api: Api, ns: str) -> None:
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/pods", {"metadata": {"name": "p"}, "spec": {}})
    assert ("FieldValueRequired", "spec.containers") in answer.causes


async def test_pod_is_mostly_immutable(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/pods"
    await api.ok("POST", path, pod("p"))
    answer = await api.send("PATCH", f"{path}/p", {"spec": {"hostname": "x"}}, content_type=MERGE)
    assert answer.causes == [("FieldValueForbidden", "spec")]
    image = {"spec": {"containers": [{"name": "c", "image": "example.org/x:2"}]}}
    changed = await api.ok("PATCH", f"{path}/p", image, content_type="application/strategic-merge-patch+json")
    assert changed["spec"]["containers"][0]["image"] == "example.org/x:2"


async def test_service_ports(api: Api, ns: str) -> None:
    body = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}, {"port": 81}]}}
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/services", body)
    assert answer.causes == [
        ("FieldValueRequired", "spec.ports[0].name"),
        ("FieldValueRequired", "spec.ports[1].name"),
    ]


async def test_cluster_address_is_immutable(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/services"
    await api.ok("POST", path, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    patch = {"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}
    answer = await api.send("PATCH", f"{path}/s", patch, content_type=MERGE)
    assert answer.status == 422
    assert ("FieldValueInvalid", "spec.clusterIPs[0]") in answer.causes


def ingress(**path: Any) -> dict[str, Any]:
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    return {"metadata": {"name": "i"}, "spec": {"rules": [{"http": {"paths": [{"backend": backend, **path}]}}]}}


async def test_ingress_path_type_is_required(api: Api, ns: str) -> None:
    answer = await api.send("POST", f"/apis/networking.k8s.io/v1/namespaces/{ns}/ingresses", ingress(path="/"))
    assert answer.causes == [("FieldValueRequired", "spec.rules[0].http.paths[0].pathType")]


async def test_ingress_path_is_absolute(api: Api, ns: str) -> None:
    body = ingress(path="x", pathType="Prefix")
    answer = await api.send("POST", f"/apis/networking.k8s.io/v1/namespaces/{ns}/ingresses", body)
    assert answer.causes == [("FieldValueInvalid", "spec.rules[0].http.paths[0].path")]
    assert answer.message.endswith('Invalid value: "x": must be an absolute path')


async def test_secret_size(api: Api, ns: str) -> None:
    body = {"metadata": {"name": "s"}, "stringData": {"x": "y" * (1024 * 1024 + 1)}}
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/secrets", body)
    assert (answer.status, answer.causes) == (422, [("FieldValueTooLong", "data")])


async def test_tls_secret_needs_both_parts(api: Api, ns: str) -> None:
    body = {"metadata": {"name": "s"}, "type": "kubernetes.io/tls", "stringData": {"tls.crt": "x"}}
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/secrets", body)
    assert answer.causes == [("FieldValueRequired", "data[tls.key]")]


async def test_secret_type_is_immutable(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/secrets"
    await api.ok("POST", path, {"metadata": {"name": "s"}})
    answer = await api.send("PATCH", f"{path}/s", {"type": "example.org/t"}, content_type=MERGE)
    assert answer.causes == [("FieldValueInvalid", "type")]


@pytest.mark.parametrize("resource", ["secrets", "configmaps"])
async def test_sealed_data(api: Api, ns: str, resource: str) -> None:
    path = f"/api/v1/namespaces/{ns}/{resource}"
    await api.ok("POST", path, {"metadata": {"name": "s"}, "immutable": True, "data": {"a": "Yg=="}})
    answer = await api.send("PATCH", f"{path}/s", {"data": {"a": "Yw=="}}, content_type=MERGE)
    assert answer.causes == [("FieldValueForbidden", "data")]
    answer = await api.send("PATCH", f"{path}/s", {"immutable": False}, content_type=MERGE)
    assert answer.causes == [("FieldValueForbidden", "immutable")]
    labelled = {"metadata": {"labels": {"l": "v"}}}
    assert (await api.send("PATCH", f"{path}/s", labelled, content_type=MERGE)).status == 200


async def test_loopback_endpoints_are_refused(api: Api, ns: str) -> None:
    body = {"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.1.5"]}]}
    answer = await api.send("POST", f"/apis/discovery.k8s.io/v1/namespaces/{ns}/endpointslices", body)
    assert answer.causes == [("FieldValueInvalid", "endpoints[0].addresses[0]")]
    assert '"127.0.1.5": may not be in the loopback range' in answer.message


async def test_address_type_is_immutable(api: Api, ns: str) -> None:
    path = f"/apis/discovery.k8s.io/v1/namespaces/{ns}/endpointslices"
    body = {"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}]}
    await api.ok("POST", path, body)
    patch = {"addressType": "IPv6", "endpoints": []}
    answer = await api.send("PATCH", f"{path}/e", patch, content_type=MERGE)
    assert answer.causes == [("FieldValueInvalid", "addressType")]


async def test_budget_takes_one_of_two_numbers(api: Api, ns: str) -> None:
    body = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "maxUnavailable": 1}}
    answer = await api.send("POST", f"/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets", body)
    assert (answer.status, answer.causes) == (422, [("FieldValueInvalid", "spec")])


async def test_role_reference_is_immutable(api: Api, ns: str) -> None:
    group = "rbac.authorization.k8s.io"
    path = f"/apis/{group}/v1/namespaces/{ns}/rolebindings"
    reference = {"apiGroup": group, "kind": "ClusterRole", "name": "view"}
    made = await api.ok("POST", path, {"metadata": {"name": "b"}, "roleRef": reference})
    made["roleRef"]["name"] = "edit"
    answer = await api.send("PUT", f"{path}/b", made)
    assert answer.causes == [("FieldValueInvalid", "roleRef")]
