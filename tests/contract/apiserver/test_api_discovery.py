"""What is served, and how clients find out."""

from __future__ import annotations

import re

from api_wire import Api

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
NEEDED = {
    "v1": {
        "pods",
        "pods/exec",
        "pods/log",
        "pods/portforward",
        "services",
        "secrets",
        "serviceaccounts/token",
        "nodes",
    },
    "apps/v1": {"deployments", "deployments/scale", "deployments/status", "replicasets"},
    "discovery.k8s.io/v1": {"endpointslices"},
    "networking.k8s.io/v1": {"ingresses", "ingresses/status", "ingressclasses", "networkpolicies"},
    "coordination.k8s.io/v1": {"leases"},
    "policy/v1": {"poddisruptionbudgets", "poddisruptionbudgets/status"},
    "autoscaling/v2": {"horizontalpodautoscalers"},
    "rbac.authorization.k8s.io/v1": {"roles", "rolebindings", "clusterroles", "clusterrolebindings"},
    "apiextensions.k8s.io/v1": {"customresourcedefinitions"},
    "authorization.k8s.io/v1": {"selfsubjectaccessreviews", "subjectaccessreviews", "selfsubjectrulesreviews"},
    "authentication.k8s.io/v1": {"tokenreviews", "selfsubjectreviews"},
}


async def test_version_is_complete(api: Api) -> None:
    version = await api.ok("GET", "/version")
    assert re.fullmatch(r"v1\.\d+\.\d+.*", version["gitVersion"])
    needed = {
        "major",
        "minor",
        "gitVersion",
        "gitCommit",
        "gitTreeState",
        "buildDate",
        "goVersion",
        "compiler",
        "platform",
    }
    assert needed <= version.keys()


async def test_health(api: Api) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert (await api.send("GET", path)).body == "ok"


async def test_resources_of_every_group(api: Api) -> None:
    for version, names in NEEDED.items():
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        document = await api.ok("GET", path)
        assert (document["kind"], document["groupVersion"]) == ("APIResourceList", version)
        assert names <= {resource["name"] for resource in document["resources"]}, version


async def test_groups_name_their_preferred_version(api: Api) -> None:
    document = await api.ok("GET", "/apis")
    apps = next(group for group in document["groups"] if group["name"] == "apps")
    assert apps["preferredVersion"] == {"groupVersion": "apps/v1", "version": "v1"}


async def test_short_names_and_categories(api: Api) -> None:
    document = await api.ok("GET", "/apis/apps/v1")
    found = next(resource for resource in document["resources"] if resource["name"] == "deployments")
    assert (found["shortNames"], found["categories"], found["singularName"]) == (["deploy"], ["all"], "deployment")


async def test_aggregated_discovery(api: Api) -> None:
    answer = await api.send("GET", "/apis", accept=AGGREGATED)
    assert answer.body["kind"] == "APIGroupDiscoveryList"
    apps = next(group for group in answer.body["items"] if group["metadata"]["name"] == "apps")
    resources = {resource["resource"]: resource for resource in apps["versions"][0]["resources"]}
    assert resources["deployments"]["responseKind"]["kind"] == "Deployment"
    assert {sub["subresource"] for sub in resources["deployments"]["subresources"]} == {"scale", "status"}


async def test_openapi_of_a_group(api: Api) -> None:
    index = await api.ok("GET", "/openapi/v3")
    document = await api.ok("GET", index["paths"]["apis/apps/v1"]["serverRelativeURL"])
    schema = document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]
    gvk = {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert gvk in schema["x-kubernetes-group-version-kind"]
    patch = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert "fieldValidation" in {parameter["name"] for parameter in patch["parameters"]}


async def test_openapi_in_one_document(api: Api) -> None:
    document = await api.ok("GET", "/openapi/v2")
    spec = document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]
    assert spec["containers"]["x-kubernetes-patch-merge-key"] == "name"


async def test_unknown_paths(api: Api) -> None:
    assert (await api.send("GET", "/nope")).status == 404
    assert (await api.send("GET", "/apis/nope.example.org")).status == 404
