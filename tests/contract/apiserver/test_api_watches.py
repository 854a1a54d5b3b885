"""Watches: from a version, from now, with everything first; transitions, bookmarks, ends."""

from __future__ import annotations

import pytest
from api_wire import MERGE, Api, configmap


async def list_version(api: Api, path: str) -> str:
    return str((await api.ok("GET", path))["metadata"]["resourceVersion"])


async def test_watch_replays_from_a_version_in_order(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/secrets"
    version = await list_version(api, path)
    await api.ok("POST", path, {"metadata": {"name": "a"}})
    await api.ok("PATCH", f"{path}/a", {"metadata": {"labels": {"x": "1"}}}, content_type=MERGE)
    await api.ok("POST", path, {"metadata": {"name": "b"}})
    await api.ok("DELETE", f"{path}/a")
    async with api.watch(f"{path}?resourceVersion={version}") as watching:
        events = [await watching.next_object() for _ in range(4)]
    assert events == [("ADDED", "a"), ("MODIFIED", "a"), ("ADDED", "b"), ("DELETED", "a")]


async def test_watch_delivers_what_happens_now(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/secrets"
    async with api.watch(f"{path}?resourceVersion={await list_version(api, path)}") as watching:
        made = await api.ok("POST", path, {"metadata": {"name": "a"}})
        event = await watching.next()
    assert event["type"] == "ADDED"
    assert event["object"] == made


@pytest.mark.parametrize("query", ["", "resourceVersion=0"])
async def test_watch_without_a_version_begins_with_what_is_there(api: Api, ns: str, query: str) -> None:
    path = f"/api/v1/namespaces/{ns}/secrets"
    await api.ok("POST", path, {"metadata": {"name": "a"}})
    async with api.watch(f"{path}?{query}") as watching:
        assert await watching.next_object() == ("ADDED", "a")
        await api.ok("POST", path, {"metadata": {"name": "b"}})
        assert await watching.next_object() == ("ADDED", "b")


async def test_deleted_event_carries_a_newer_version(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/secrets"
    made = await api.ok("POST", path, {"metadata": {"name": "a"}})
    version = made["metadata"]["resourceVersion"]
    async with api.watch(f"{path}?resourceVersion={version}") as watching:
        await api.ok("DELETE", f"{path}/a")
        event = await watching.next()
    assert event["type"] == "DELETED"
    assert int(event["object"]["metadata"]["resourceVersion"]) > int(version)


async def test_selector_transitions_become_added_and_deleted(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/secrets"
    await api.ok("POST", path, {"metadata": {"name": "a"}})
    version = await list_version(api, path)
    async with api.watch(f"{path}?labelSelector=x%3D1&resourceVersion={version}") as watching:
        for value in ("1", "1", "2"):
            body = {"metadata": {"labels": {"x": value}, "annotations": {"n": value + "!"}}}
            await api.ok("PATCH", f"{path}/a", body, content_type=MERGE)
        await api.ok("PATCH", f"{path}/a", {"metadata": {"labels": {"x": "1"}}}, content_type=MERGE)
        events = [await watching.next_object() for _ in range(3)]
    assert events == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a")]


async def test_watch_of_one_object_by_field(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/secrets"
    version = await list_version(api, path)
    async with api.watch(f"{path}?fieldSelector=metadata.name%3Db&resourceVersion={version}") as watching:
        await api.ok("POST", path, {"metadata": {"name": "a"}})
        await api.ok("POST", path, {"metadata": {"name": "b"}})
        assert await watching.next_object() == ("ADDED", "b")


async def test_initial_events_end_with_a_bookmark(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/secrets"
    await api.ok("POST", path, {"metadata": {"name": "a"}})
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion="
    async with api.watch(f"{path}?{query}") as watching:
        assert await watching.next_object() == ("ADDED", "a")
        bookmark = await watching.next()
        assert bookmark["type"] == "BOOKMARK"
        assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        await api.ok("POST", path, {"metadata": {"name": "b"}})
        assert await watching.next_object() == ("ADDED", "b")


async def test_initial_events_need_the_right_options(api: Api, ns: str) -> None:
    answer = await api.send("GET", f"/api/v1/namespaces/{ns}/secrets?watch=true&sendInitialEvents=true")
    assert (answer.status, answer.reason) == (422, "Invalid")


async def test_watch_ends_after_its_timeout(api: Api, ns: str) -> None:
    async with api.watch(f"/api/v1/namespaces/{ns}/secrets?timeoutSeconds=1") as watching:
        assert await watching.rest() == []


async def test_resumed_watch_misses_nothing(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/secrets"
    version = await list_version(api, path)
    await api.ok("POST", path, {"metadata": {"name": "a"}})
    async with api.watch(f"{path}?resourceVersion={version}") as watching:
        event = await watching.next()
    await api.ok("POST", path, {"metadata": {"name": "b"}})
    async with api.watch(f"{path}?resourceVersion={event['object']['metadata']['resourceVersion']}") as watching:
        assert await watching.next_object() == ("ADDED", "b")


async def test_versions_are_one_line_over_resources(api: Api, ns: str) -> None:
    secret = await api.ok("POST", f"/api/v1/namespaces/{ns}/secrets", {"metadata": {"name": "a"}})
    other = await api.ok("POST", f"/api/v1/namespaces/{ns}/configmaps", configmap("a"))
    assert int(other["metadata"]["resourceVersion"]) > int(secret["metadata"]["resourceVersion"])


async def test_watch_of_a_table(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/secrets"
    await api.ok("POST", path, {"metadata": {"name": "a"}})
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    url = f"{api.server}{path}?watch=true&timeoutSeconds=1"
    async with api._session.get(url, headers=accept) as response:
        import json

        event = json.loads(await response.content.readline())
    assert event["object"]["kind"] == "Table"
    assert event["object"]["rows"][0]["cells"][0] == "a"
