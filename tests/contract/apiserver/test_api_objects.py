"""Create, read, replace: identity, versions, conflicts, dry runs."""

from __future__ import annotations

import re

from api_wire import Api, configmap, deployment


async def test_created_object_has_identity(api: Api, ns: str) -> None:
    made = await api.ok("POST", f"/api/v1/namespaces/{ns}/configmaps", configmap("a"))
    metadata = made["metadata"]
    assert re.fullmatch(r"[0-9a-f-]{36}", metadata["uid"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", metadata["creationTimestamp"])
    assert int(metadata["resourceVersion"]) > 0
    assert metadata["namespace"] == ns
    assert await api.ok("GET", f"/api/v1/namespaces/{ns}/configmaps/a") == made


async def test_generate_name_makes_distinct_names(api: Api, ns: str) -> None:
    body = {"metadata": {"generateName": "x-"}}
    names = {
        (await api.ok("POST", f"/api/v1/namespaces/{ns}/configmaps", body))["metadata"]["name"] for _ in range(3)
    }
    assert len(names) == 3
    assert all(re.fullmatch(r"x-[a-z0-9]{5}", name) for name in names)


async def test_second_create_already_exists(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    await api.ok("POST", path, configmap("a"))
    again = await api.send("POST", path, configmap("a"))
    assert (again.status, again.reason) == (409, "AlreadyExists")
    assert again.message == 'configmaps "a" already exists'
    assert again.body["details"] == {"name": "a", "kind": "configmaps"}


async def test_not_found_names_the_resource(api: Api, ns: str) -> None:
    answer = await api.send("GET", f"/apis/apps/v1/namespaces/{ns}/deployments/nope")
    assert (answer.status, answer.reason) == (404, "NotFound")
    assert answer.message == 'deployments.apps "nope" not found'
    assert answer.body["details"] == {"name": "nope", "group": "apps", "kind": "deployments"}


async def test_create_in_missing_namespace(api: Api) -> None:
    answer = await api.send("POST", "/api/v1/namespaces/konverge-nowhere/configmaps", configmap("a"))
    assert (answer.status, answer.message) == (404, 'namespaces "konverge-nowhere" not found')


async def test_replace_is_not_a_merge(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    made = await api.ok("POST", path, configmap("a", {"x": "1", "y": "2"}, labels={"l": "1"}))
    made["data"] = {"x": "3"}
    del made["metadata"]["labels"]
    changed = await api.ok("PUT", f"{path}/a", made)
    assert changed["data"] == {"x": "3"}
    assert "labels" not in changed["metadata"]
    assert changed["metadata"]["uid"] == made["metadata"]["uid"]
    assert int(changed["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])


async def test_stale_replace_conflicts(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    made = await api.ok("POST", path, configmap("a"))
    await api.ok("PUT", f"{path}/a", {**made, "data": {"x": "1"}})
    stale = await api.send("PUT", f"{path}/a", {**made, "data": {"x": "2"}})
    assert (stale.status, stale.reason) == (409, "Conflict")
    assert stale.message == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )


async def test_replace_that_changes_nothing_keeps_the_version(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    made = await api.ok("POST", path, configmap("a"))
    same = await api.ok("PUT", f"{path}/a", made)
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_name_in_body_and_path_must_agree(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    await api.ok("POST", path, configmap("a"))
    answer = await api.send("PUT", f"{path}/a", configmap("b"))
    assert (answer.status, answer.reason) == (400, "BadRequest")
    assert answer.message == "the name of the object (b) does not match the name on the URL (a)"


async def test_namespace_in_body_and_path_must_agree(api: Api, ns: str) -> None:
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/configmaps", configmap("a", namespace="other"))
    assert answer.status == 400
    assert answer.message == "the namespace of the provided object does not match the namespace sent on the request"


async def test_dry_run_stores_nothing(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    shown = await api.ok("POST", f"{path}?dryRun=All", configmap("a"))
    assert shown["metadata"]["uid"]
    assert (await api.send("GET", f"{path}/a")).status == 404


async def test_generation_counts_changes_of_the_spec_only(api: Api, ns: str) -> None:
    path = f"/apis/apps/v1/namespaces/{ns}/deployments"
    made = await api.ok("POST", path, {**deployment("d"), "spec": {**deployment("d")["spec"], "paused": True}})
    assert made["metadata"]["generation"] == 1
    merge = "application/merge-patch+json"
    labelled = await api.ok("PATCH", f"{path}/d", {"metadata": {"labels": {"x": "y"}}}, content_type=merge)
    assert labelled["metadata"]["generation"] == 1
    changed = await api.ok("PATCH", f"{path}/d", {"spec": {"minReadySeconds": 1}}, content_type=merge)
    assert changed["metadata"]["generation"] == 2


async def test_status_and_spec_are_isolated(api: Api, ns: str) -> None:
    path = f"/apis/networking.k8s.io/v1/namespaces/{ns}/ingresses"
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    made = await api.ok("POST", path, {"metadata": {"name": "i"}, "spec": {"defaultBackend": backend}})
    wanted = {"loadBalancer": {"ingress": [{"ip": "10.1.2.3"}]}}
    made["status"], made["spec"]["ingressClassName"] = wanted, "ignored"
    after_status = await api.ok("PUT", f"{path}/i/status", made)
    assert after_status["status"] == wanted
    assert "ingressClassName" not in after_status["spec"]
    after_status["status"], after_status["spec"]["ingressClassName"] = {}, "set"
    after_spec = await api.ok("PUT", f"{path}/i", after_status)
    assert after_spec["status"] == wanted
    assert after_spec["spec"]["ingressClassName"] == "set"


async def test_lease_is_created_by_put(api: Api, ns: str) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{ns}/leases/l"
    spec = {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.123456Z"}
    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": spec}
    answer = await api.send("PUT", path, body)
    assert answer.status == 201
    assert answer.body["spec"]["renewTime"] == "2026-01-01T00:00:00.123456Z"


async def test_events_are_shared_between_both_groups(api: Api, ns: str) -> None:
    body = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": ns, "apiVersion": "v1"},
        "reason": "Tested",
        "message": "it happened",
        "type": "Normal",
        "count": 2,
    }
    await api.ok("POST", f"/api/v1/namespaces/{ns}/events", body)
    newer = await api.ok("GET", f"/apis/events.k8s.io/v1/namespaces/{ns}/events/e")
    assert (newer["note"], newer["regarding"]["name"], newer["deprecatedCount"]) == ("it happened", "p", 2)
    found = await api.ok("GET", f"/api/v1/namespaces/{ns}/events?fieldSelector=involvedObject.name=p,reason=Tested")
    assert [item["metadata"]["name"] for item in found["items"]] == ["e"]
