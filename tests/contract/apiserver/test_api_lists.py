"""Lists: kinds, selectors, pages, tables, metadata only."""

from __future__ import annotations

import pytest
from api_wire import Api, configmap, deployment, pod

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


async def make_labelled(api: Api, ns: str) -> None:
    for name, labels in (("a", {"x": "1"}), ("b", {"x": "2"}), ("c", {"x": "1", "y": "1"}), ("d", {})):
        await api.ok("POST", f"/api/v1/namespaces/{ns}/secrets", {"metadata": {"name": name, "labels": labels}})


async def test_list_of_built_in_kinds_has_bare_items(api: Api, ns: str) -> None:
    await api.ok("POST", f"/api/v1/namespaces/{ns}/secrets", {"metadata": {"name": "s"}})
    found = await api.ok("GET", f"/api/v1/namespaces/{ns}/secrets")
    assert (found["kind"], found["apiVersion"]) == ("SecretList", "v1")
    assert int(found["metadata"]["resourceVersion"]) > 0
    assert "kind" not in found["items"][0]


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("x=1", "ac"),
        ("x==2", "b"),
        ("x!=1", "bd"),
        ("x in (1,2)", "abc"),
        ("x notin (1)", "bd"),
        ("y", "c"),
        ("!x", "d"),
        ("x,!y", "ab"),
        ("x=1,y=1", "c"),
    ],
)
async def test_label_selectors(api: Api, ns: str, selector: str, names: str) -> None:
    await make_labelled(api, ns)
    from urllib.parse import quote

    found = await api.ok("GET", f"/api/v1/namespaces/{ns}/secrets?labelSelector={quote(selector)}")
    assert "".join(sorted(item["metadata"]["name"] for item in found["items"])) == names


async def test_field_selectors(api: Api, ns: str) -> None:
    await api.ok("POST", f"/api/v1/namespaces/{ns}/pods", pod("p"))
    path = f"/api/v1/namespaces/{ns}/pods?fieldSelector="
    for selector, count in (
        ("metadata.name=p", 1),
        ("metadata.name!=p", 0),
        ("status.phase=Pending", 1),
        ("spec.nodeName=", 1),
        ("spec.nodeName=n,metadata.name=p", 0),
    ):
        assert len((await api.ok("GET", path + selector))["items"]) == count, selector


async def test_secrets_by_type(api: Api, ns: str) -> None:
    await api.ok("POST", f"/api/v1/namespaces/{ns}/secrets", {"metadata": {"name": "s"}, "type": "example.org/t"})
    found = await api.ok("GET", f"/api/v1/namespaces/{ns}/secrets?fieldSelector=type=example.org/t")
    assert [item["metadata"]["name"] for item in found["items"]] == ["s"]


async def test_pages_cover_everything_once(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/secrets"
    for index in range(7):
        await api.ok("POST", path, {"metadata": {"name": f"s{index}"}})
    seen, token, sizes = [], "", []
    first = await api.ok("GET", f"{path}?limit=3")
    assert first["metadata"]["remainingItemCount"] == 4
    page = first
    while True:
        seen += [item["metadata"]["name"] for item in page["items"]]
        sizes.append(len(page["items"]))
        token = page["metadata"].get("continue", "")
        if not token:
            break
        page = await api.ok("GET", f"{path}?limit=3&continue={token}")
    assert sizes == [3, 3, 1]
    assert seen == [f"s{index}" for index in range(7)]


async def test_pages_show_the_moment_of_the_first(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/secrets"
    for name in ("a", "b", "c"):
        await api.ok("POST", path, {"metadata": {"name": name}})
    first = await api.ok("GET", f"{path}?limit=1")
    await api.ok("DELETE", f"{path}/b")
    await api.ok("POST", path, {"metadata": {"name": "bb"}})
    second = await api.ok("GET", f"{path}?limit=5&continue={first['metadata']['continue']}")
    assert [item["metadata"]["name"] for item in second["items"]] == ["b", "c"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_list_across_namespaces(api: Api, ns: str) -> None:
    await api.ok("POST", f"/api/v1/namespaces/{ns}/configmaps", configmap("everywhere", labels={"across": ns}))
    found = await api.ok("GET", f"/api/v1/configmaps?labelSelector=across={ns}")
    assert [item["metadata"]["namespace"] for item in found["items"]] == [ns]


async def test_table_of_pods(api: Api, ns: str) -> None:
    await api.ok("POST", f"/api/v1/namespaces/{ns}/pods", pod("p"))
    table = await api.ok("GET", f"/api/v1/namespaces/{ns}/pods", accept=TABLE)
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    names = [column["name"] for column in table["columnDefinitions"] if not column["priority"]]
    assert names == ["Name", "Ready", "Status", "Restarts", "Age"]
    assert table["rows"][0]["cells"][:4] == ["p", "0/1", "Pending", "0"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"


async def test_table_of_deployments(api: Api, ns: str) -> None:
    await api.ok("POST", f"/apis/apps/v1/namespaces/{ns}/deployments", deployment("d"))
    path = f"/apis/apps/v1/namespaces/{ns}/deployments/d?includeObject=Object"
    table = await api.ok("GET", path, accept=TABLE)
    assert table["rows"][0]["cells"][:4] == ["d", "0/0", 0, 0]
    assert table["rows"][0]["object"]["kind"] == "Deployment"


async def test_metadata_only(api: Api, ns: str) -> None:
    await api.ok("POST", f"/api/v1/namespaces/{ns}/configmaps", configmap("a"))
    found = await api.ok("GET", f"/api/v1/namespaces/{ns}/configmaps", accept=PARTIAL)
    assert found["kind"] == "PartialObjectMetadataList"
    assert all(set(item) == {"kind", "apiVersion", "metadata"} for item in found["items"])
