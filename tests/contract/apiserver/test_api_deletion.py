"""Deletion: answers, preconditions, finalizers, owners, namespaces."""

from __future__ import annotations

from typing import Any

from api_wire import MERGE, Api, configmap, deployment, pod, wait_for


async def gone(api: Api, path: str) -> bool:
    return (await api.send("GET", path)).status == 404


async def test_deletion_answers_with_a_status(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    made = await api.ok("POST", path, configmap("a"))
    answer = await api.ok("DELETE", f"{path}/a")
    assert (answer["kind"], answer["status"]) == ("Status", "Success")
    assert answer["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    assert await gone(api, f"{path}/a")


async def test_pod_without_a_node_goes_at_once(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/pods"
    await api.ok("POST", path, pod("p"))
    answer = await api.ok("DELETE", f"{path}/p")
    assert (answer["kind"], answer["metadata"]["deletionGracePeriodSeconds"]) == ("Pod", 0)
    assert await gone(api, f"{path}/p")


async def test_pod_on_a_node_gets_its_grace(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/pods"
    await api.ok("POST", path, pod("p", nodeName="conformance-no-such-node", terminationGracePeriodSeconds=40))
    marked = await api.ok("DELETE", f"{path}/p")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 40
    assert marked["metadata"]["deletionTimestamp"] > marked["metadata"]["creationTimestamp"]
    again = await api.ok("DELETE", f"{path}/p", {"gracePeriodSeconds": 5})
    assert again["metadata"]["deletionGracePeriodSeconds"] == 5
    await api.ok("DELETE", f"{path}/p", {"gracePeriodSeconds": 0})
    assert await gone(api, f"{path}/p")


async def test_preconditions(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    made = await api.ok("POST", path, configmap("a"))
    other = {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}
    refused = await api.send("DELETE", f"{path}/a", other)
    assert (refused.status, refused.reason) == (409, "Conflict")
    stale = {"preconditions": {"resourceVersion": "1"}}
    assert (await api.send("DELETE", f"{path}/a", stale)).status == 409
    await api.ok("DELETE", f"{path}/a", {"preconditions": {"uid": made["metadata"]["uid"]}})


async def test_dry_run_deletes_nothing(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    await api.ok("POST", path, configmap("a"))
    await api.ok("DELETE", f"{path}/a?dryRun=All")
    assert not await gone(api, f"{path}/a")


async def test_finalizers_hold_an_object(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    await api.ok("POST", path, configmap("a", finalizers=["example.org/hold"]))
    marked = await api.ok("DELETE", f"{path}/a")
    assert marked["metadata"]["deletionTimestamp"]
    assert marked["metadata"]["finalizers"] == ["example.org/hold"]
    more = {"metadata": {"finalizers": ["example.org/hold", "example.org/late"]}}
    refused = await api.send("PATCH", f"{path}/a", more, content_type=MERGE)
    assert set(refused.causes) == {("FieldValueForbidden", "metadata.finalizers")}
    await api.ok("PATCH", f"{path}/a", {"metadata": {"finalizers": None}}, content_type=MERGE)
    assert await gone(api, f"{path}/a")


async def test_collection(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/secrets"
    for name, label in (("a", "x"), ("b", "x"), ("c", "y")):
        await api.ok("POST", path, {"metadata": {"name": name, "labels": {"l": label}}})
    await api.ok("DELETE", f"{path}?labelSelector=l%3Dx")
    left = await api.ok("GET", path)
    assert [item["metadata"]["name"] for item in left["items"]] == ["c"]


def reference(owner: Any, kind: str = "ConfigMap", **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        **more,
    }


async def test_dependents_follow_their_owner(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    owner = await api.ok("POST", path, configmap("owner"))
    await api.ok("POST", path, configmap("child", ownerReferences=[reference(owner)]))
    await api.ok("DELETE", f"{path}/owner")
    await wait_for(lambda: gone(api, f"{path}/child"))


async def test_orphans_stay(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    owner = await api.ok("POST", path, configmap("owner"))
    await api.ok("POST", path, configmap("child", ownerReferences=[reference(owner)]))
    await api.ok("DELETE", f"{path}/owner", {"propagationPolicy": "Orphan"})
    await wait_for(lambda: gone(api, f"{path}/owner"))
    child = await api.ok("GET", f"{path}/child")
    assert "ownerReferences" not in child["metadata"]


async def test_foreground_waits_for_dependents(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    owner = await api.ok("POST", path, configmap("owner"))
    blocking = reference(owner, blockOwnerDeletion=True)
    child = configmap("child", ownerReferences=[blocking], finalizers=["example.org/hold"])
    await api.ok("POST", path, child)
    marked = await api.ok("DELETE", f"{path}/owner", {"propagationPolicy": "Foreground"})
    assert marked["metadata"]["finalizers"] == ["foregroundDeletion"]

    async def child_marked() -> bool:
        return "deletionTimestamp" in (await api.ok("GET", f"{path}/child"))["metadata"]

    await wait_for(child_marked)
    assert not await gone(api, f"{path}/owner")
    await api.ok("PATCH", f"{path}/child", {"metadata": {"finalizers": None}}, content_type=MERGE)
    await wait_for(lambda: gone(api, f"{path}/owner"))


async def test_object_of_two_owners_outlives_one(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    first = await api.ok("POST", path, configmap("first"))
    second = await api.ok("POST", path, configmap("second"))
    await api.ok("POST", path, configmap("child", ownerReferences=[reference(first), reference(second)]))
    await api.ok("DELETE", f"{path}/first")

    async def released() -> bool:
        child = await api.ok("GET", f"{path}/child")
        return [o["name"] for o in child["metadata"]["ownerReferences"]] == ["second"]

    await wait_for(released)


async def test_namespace_takes_its_content_along(api: Api, ns: str) -> None:
    await api.ok("POST", f"/api/v1/namespaces/{ns}/configmaps", configmap("a"))
    await api.ok("POST", f"/apis/apps/v1/namespaces/{ns}/deployments", deployment("d"))
    marked = await api.ok("DELETE", f"/api/v1/namespaces/{ns}")
    assert marked["status"]["phase"] == "Terminating"
    await wait_for(lambda: gone(api, f"/api/v1/namespaces/{ns}"), deadline=60)
    assert await gone(api, f"/apis/apps/v1/namespaces/{ns}/deployments/d")


async def test_nothing_new_in_a_namespace_that_goes(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    await api.ok("POST", path, configmap("a", finalizers=["example.org/hold"]))
    await api.ok("DELETE", f"/api/v1/namespaces/{ns}")

    async def refused() -> bool:
        answer = await api.send("POST", path, configmap("b"))
        return answer.status == 403 and ("NamespaceTerminating", "metadata.namespace") in answer.causes

    await wait_for(refused)
    await api.ok("PATCH", f"{path}/a", {"metadata": {"finalizers": None}}, content_type=MERGE)


async def test_default_namespace_is_protected(api: Api) -> None:
    answer = await api.send("DELETE", "/api/v1/namespaces/default")
    assert (answer.status, answer.message) == (
        403,
        'namespaces "default" is forbidden: this namespace may not be deleted',
    )
