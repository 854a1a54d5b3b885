"""Server-side apply: ownership, conflicts, removal."""

from __future__ import annotations

from typing import Any

from api_wire import APPLY, MERGE, Answer, Api, configmap, deployment


async def apply(api: Api, path: str, body: Any, manager: str, *, force: bool = False) -> Answer:
    flag = "&force=true" if force else ""
    return await api.send("PATCH", f"{path}?fieldManager={manager}{flag}", body, content_type=APPLY)


def owned(body: Any, manager: str, operation: str = "Apply") -> Any:
    entries = [
        entry["fieldsV1"]
        for entry in body["metadata"]["managedFields"]
        if (entry["manager"], entry["operation"]) == (manager, operation)
    ]
    return entries[0] if entries else None


async def test_apply_creates(api: Api, ns: str) -> None:
    answer = await apply(api, f"/api/v1/namespaces/{ns}/configmaps/a", configmap("a"), "one")
    assert answer.status == 201
    assert owned(answer.body, "one") == {"f:data": {"f:a": {}}}


async def test_apply_again_changes_nothing(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps/a"
    first = await apply(api, path, configmap("a"), "one")
    again = await apply(api, path, configmap("a"), "one")
    assert again.status == 200
    assert again.body == first.body


async def test_apply_needs_a_manager(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps/a"
    answer = await api.send("PATCH", path, configmap("a"), content_type=APPLY)
    assert (answer.status, answer.reason) == (422, "Invalid")


async def test_conflict_names_the_owner_and_the_field(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps/a"
    await apply(api, path, configmap("a", {"x": "1"}), "one")
    answer = await apply(api, path, configmap("a", {"x": "2"}), "two")
    assert (answer.status, answer.reason) == (409, "Conflict")
    assert answer.message == 'Apply failed with 1 conflict: conflict with "one": .data.x'
    assert answer.causes == [("FieldManagerConflict", ".data.x")]


async def test_conflict_with_an_updater_names_its_version(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    await api.ok("POST", f"{path}?fieldManager=maker", configmap("a", {"x": "1", "y": "1"}))
    answer = await apply(api, f"{path}/a", configmap("a", {"x": "2", "y": "2"}), "two")
    assert answer.message == ('Apply failed with 2 conflicts: conflicts with "maker" using v1:\n- .data.x\n- .data.y')


async def test_force_takes_ownership(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps/a"
    await apply(api, path, configmap("a", {"x": "1", "y": "1"}), "one")
    answer = await apply(api, path, configmap("a", {"x": "2"}), "two", force=True)
    assert answer.body["data"] == {"x": "2", "y": "1"}
    assert owned(answer.body, "two") == {"f:data": {"f:x": {}}}
    assert owned(answer.body, "one") == {"f:data": {"f:y": {}}}


async def test_same_value_is_shared(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps/a"
    await apply(api, path, configmap("a", {"x": "1"}), "one")
    answer = await apply(api, path, configmap("a", {"x": "1"}), "two")
    assert answer.status == 200
    assert owned(answer.body, "one") == owned(answer.body, "two") == {"f:data": {"f:x": {}}}


async def test_what_is_no_longer_applied_goes(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps/a"
    await apply(api, path, configmap("a", {"x": "1", "y": "1"}), "one")
    answer = await apply(api, path, configmap("a", {"x": "1"}), "one")
    assert answer.body["data"] == {"x": "1"}


async def test_what_another_owns_too_stays(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps/a"
    await apply(api, path, configmap("a", {"x": "1", "y": "1"}), "one")
    await apply(api, path, configmap("a", {"y": "1"}), "two")
    answer = await apply(api, path, configmap("a", {"x": "1"}), "one")
    assert answer.body["data"] == {"x": "1", "y": "1"}


async def test_update_takes_fields_from_an_applier(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps/a"
    await apply(api, path, configmap("a", {"x": "1", "y": "1"}), "one")
    changed = await api.ok("PATCH", f"{path}?fieldManager=hand", {"data": {"x": "9"}}, content_type=MERGE)
    assert owned(changed, "one") == {"f:data": {"f:y": {}}}
    assert owned(changed, "hand", "Update") == {"f:data": {"f:x": {}}}


async def test_lists_are_owned_item_by_item(api: Api, ns: str) -> None:
    path = f"/apis/apps/v1/namespaces/{ns}/deployments/d"
    await apply(api, path, deployment("d"), "one")
    sidecar = deployment("d")
    sidecar["spec"] = {"template": {"spec": {"containers": [{"name": "side", "image": "example.org/s:1"}]}}}
    answer = await apply(api, path, sidecar, "two")
    assert answer.status == 200, answer.body
    containers = answer.body["spec"]["template"]["spec"]["containers"]
    assert {c["name"] for c in containers} == {"c", "side"}
    fields = owned(answer.body, "two")["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert fields == {'k:{"name":"side"}': {".": {}, "f:image": {}, "f:name": {}}}
    sidecar["spec"]["template"]["spec"]["containers"] = [{"name": "other", "image": "example.org/s:1"}]
    answer = await apply(api, path, sidecar, "two")
    assert {c["name"] for c in answer.body["spec"]["template"]["spec"]["containers"]} == {"c", "other"}


async def test_status_is_applied_by_itself(api: Api, ns: str) -> None:
    path = f"/apis/networking.k8s.io/v1/namespaces/{ns}/ingresses/i"
    head = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"}}
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    await apply(api, path, {**head, "spec": {"defaultBackend": backend}}, "one")
    status = {"loadBalancer": {"ingress": [{"ip": "10.1.2.3"}]}}
    answer = await apply(api, f"{path}/status", {**head, "status": status}, "controller")
    assert answer.status == 200
    assert answer.body["status"] == status
    entry = next(e for e in answer.body["metadata"]["managedFields"] if e["manager"] == "controller")
    assert entry["subresource"] == "status"


async def test_managed_fields_of_an_update(api: Api, ns: str) -> None:
    made = await api.ok("POST", f"/api/v1/namespaces/{ns}/configmaps?fieldManager=hand", configmap("a", {"x": "1"}))
    entry = made["metadata"]["managedFields"][0]
    assert (entry["manager"], entry["operation"], entry["fieldsType"]) == ("hand", "Update", "FieldsV1")
    assert entry["fieldsV1"]["f:data"] == {".": {}, "f:x": {}}
