"""Merge, JSON and strategic merge patches."""

from __future__ import annotations

from typing import Any

from api_wire import JSON_PATCH, MERGE, STRATEGIC, Api, configmap, deployment


async def patched(api: Api, path: str, patch: Any, content_type: str) -> Any:
    return await api.ok("PATCH", path, patch, content_type=content_type)


async def test_merge_patch_deletes_by_null(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    await api.ok("POST", path, configmap("a", {"x": "1", "y": "2"}))
    changed = await patched(api, f"{path}/a", {"data": {"x": None, "z": "3"}}, MERGE)
    assert changed["data"] == {"y": "2", "z": "3"}


async def test_merge_patch_replaces_lists(api: Api, ns: str) -> None:
    path = f"/apis/apps/v1/namespaces/{ns}/deployments"
    await api.ok("POST", path, deployment("d"))
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "other", "image": "example.org/y:1"}]}}}}
    changed = await patched(api, f"{path}/d", patch, MERGE)
    assert [c["name"] for c in changed["spec"]["template"]["spec"]["containers"]] == ["other"]


async def test_json_patch(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    await api.ok("POST", path, configmap("a", {"x": "1"}, annotations={"example.org/z": "2", "k": "v"}))
    operations = [
        {"op": "test", "path": "/data/x", "value": "1"},
        {"op": "replace", "path": "/data/x", "value": "9"},
        {"op": "remove", "path": "/metadata/annotations/example.org~1z"},
        {"op": "add", "path": "/metadata/labels", "value": {"l": "v"}},
    ]
    changed = await patched(api, f"{path}/a", operations, JSON_PATCH)
    assert changed["data"] == {"x": "9"}
    assert changed["metadata"]["annotations"] == {"k": "v"}
    assert changed["metadata"]["labels"] == {"l": "v"}


async def test_json_patch_whose_test_fails_changes_nothing(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    made = await api.ok("POST", path, configmap("a"))
    operations = [
        {"op": "replace", "path": "/data/a", "value": "2"},
        {"op": "test", "path": "/data/a", "value": "nope"},
    ]
    answer = await api.send("PATCH", f"{path}/a", operations, content_type=JSON_PATCH)
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert await api.ok("GET", f"{path}/a") == made


async def test_strategic_patch_merges_containers_by_name(api: Api, ns: str) -> None:
    path = f"/apis/apps/v1/namespaces/{ns}/deployments"
    await api.ok("POST", path, deployment("d"))
    containers = [{"name": "c", "env": [{"name": "A", "value": "1"}]}, {"name": "new", "image": "example.org/y:1"}]
    changed = await patched(api, f"{path}/d", {"spec": {"template": {"spec": {"containers": containers}}}}, STRATEGIC)
    found = {c["name"]: c for c in changed["spec"]["template"]["spec"]["containers"]}
    assert found.keys() == {"c", "new"}
    assert (found["c"]["image"], found["c"]["env"]) == ("example.org/x:1", [{"name": "A", "value": "1"}])


async def test_strategic_patch_deletes_an_item(api: Api, ns: str) -> None:
    path = f"/apis/apps/v1/namespaces/{ns}/deployments"
    body = deployment("d")
    body["spec"]["template"]["spec"]["containers"].append({"name": "e", "image": "example.org/y:1"})
    await api.ok("POST", path, body)
    containers = [{"name": "c", "$patch": "delete"}]
    changed = await patched(api, f"{path}/d", {"spec": {"template": {"spec": {"containers": containers}}}}, STRATEGIC)
    assert [c["name"] for c in changed["spec"]["template"]["spec"]["containers"]] == ["e"]


async def test_strategic_patch_replaces_where_told(api: Api, ns: str) -> None:
    path = f"/apis/apps/v1/namespaces/{ns}/deployments"
    await api.ok("POST", path, deployment("d"))
    containers = [{"$patch": "replace"}, {"name": "z", "image": "example.org/z:1"}]
    changed = await patched(api, f"{path}/d", {"spec": {"template": {"spec": {"containers": containers}}}}, STRATEGIC)
    assert [c["name"] for c in changed["spec"]["template"]["spec"]["containers"]] == ["z"]


async def test_strategic_patch_orders_elements(api: Api, ns: str) -> None:
    path = f"/apis/apps/v1/namespaces/{ns}/deployments"
    body = deployment("d")
    body["spec"]["template"]["spec"]["containers"].append({"name": "e", "image": "example.org/y:1"})
    await api.ok("POST", path, body)
    spec = {
        "$setElementOrder/containers": [{"name": "e"}, {"name": "c"}],
        "containers": [{"name": "c", "image": "example.org/x:2"}],
    }
    changed = await patched(api, f"{path}/d", {"spec": {"template": {"spec": spec}}}, STRATEGIC)
    found = [(c["name"], c["image"]) for c in changed["spec"]["template"]["spec"]["containers"]]
    assert found == [("e", "example.org/y:1"), ("c", "example.org/x:2")]


async def test_strategic_patch_retains_keys(api: Api, ns: str) -> None:
    path = f"/apis/apps/v1/namespaces/{ns}/deployments"
    await api.ok("POST", path, deployment("d"))
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    changed = await patched(api, f"{path}/d", patch, STRATEGIC)
    assert changed["spec"]["strategy"] == {"type": "Recreate"}


async def test_strategic_patch_deletes_from_a_primitive_list(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    await api.ok("POST", path, configmap("a", finalizers=["example.org/a", "example.org/b"]))
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.org/a"]}}
    changed = await patched(api, f"{path}/a", patch, STRATEGIC)
    assert changed["metadata"]["finalizers"] == ["example.org/b"]
    await patched(api, f"{path}/a", {"metadata": {"finalizers": None}}, MERGE)


async def test_patch_of_the_status(api: Api, ns: str) -> None:
    path = f"/apis/apps/v1/namespaces/{ns}/deployments"
    body = {**deployment("d"), "spec": {**deployment("d")["spec"], "paused": True}}
    await api.ok("POST", path, body)
    await patched(api, f"{path}/d/status", {"status": {"observedGeneration": 1, "collisionCount": 3}}, MERGE)
    patch = {"status": {"collisionCount": 4}, "spec": {"replicas": 7}}
    changed = await patched(api, f"{path}/d/status", patch, MERGE)
    assert changed["status"]["collisionCount"] == 4
    assert changed["spec"]["replicas"] == 0


async def test_patch_with_a_stale_version_conflicts(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    made = await api.ok("POST", path, configmap("a"))
    await patched(api, f"{path}/a", {"data": {"x": "1"}}, MERGE)
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"x": "2"}}
    answer = await api.send("PATCH", f"{path}/a", stale, content_type=MERGE)
    assert (answer.status, answer.reason) == (409, "Conflict")


async def test_patch_of_nothing_is_not_found(api: Api, ns: str) -> None:
    answer = await api.send("PATCH", f"/api/v1/namespaces/{ns}/configmaps/nope", {"data": {}}, content_type=MERGE)
    assert (answer.status, answer.reason) == (404, "NotFound")


async def test_patch_of_a_foreign_type(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    await api.ok("POST", path, configmap("a"))
    answer = await api.send("PATCH", f"{path}/a", {}, content_type="application/json")
    assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")


async def test_scale_reads_and_writes_replicas(api: Api, ns: str) -> None:
    path = f"/apis/apps/v1/namespaces/{ns}/deployments"
    body = {**deployment("d"), "spec": {**deployment("d")["spec"], "paused": True}}
    await api.ok("POST", path, body)
    scale = await api.ok("GET", f"{path}/d/scale")
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert scale["status"]["selector"] == "app=d"
    await patched(api, f"{path}/d/scale", {"spec": {"replicas": 2}}, MERGE)
    assert (await api.ok("GET", f"{path}/d"))["spec"]["replicas"] == 2
