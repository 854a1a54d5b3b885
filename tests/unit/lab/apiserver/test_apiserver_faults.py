"""Faults, compaction, persistence, counters: what only the stand-in can do."""

from __future__ import annotations

import asyncio
import json
import time

import aiohttp
import pytest
from apiserver_wire import Wire, context_of

from konverge.lab.apiserver import ApiServer, Fault, Settings

MAPS = "/api/v1/namespaces/default/configmaps"


async def read_event(response: aiohttp.ClientResponse) -> dict[str, object]:
    async with asyncio.timeout(10):
        event: dict[str, object] = json.loads(await response.content.readline())
    return event


async def version_of(wire: Wire) -> str:
    _, listed = await wire.send("GET", MAPS)
    return str(listed["metadata"]["resourceVersion"])


async def test_status_fault_strikes_what_it_matches(server: ApiServer, wire: Wire) -> None:
    server.faults.add(Fault("status", verb="create", resource="configmaps", code=503, count=1))
    assert (await wire.send("GET", MAPS))[0] == 200
    code, body = await wire.send("POST", MAPS, {"metadata": {"name": "a"}})
    assert (code, body["reason"]) == (503, "ServiceUnavailable")
    assert (await wire.send("POST", MAPS, {"metadata": {"name": "a"}}))[0] == 201


async def test_share_of_requests(server: ApiServer, wire: Wire) -> None:
    server.faults.add(Fault("status", verb="list", code=429, share=0.5))
    codes = [(await wire.send("GET", MAPS))[0] for _ in range(60)]
    assert 10 < codes.count(429) < 50
    assert set(codes) == {200, 429}


async def test_latency(server: ApiServer, wire: Wire) -> None:
    server.faults.add(Fault("latency", verb="list", seconds=0.2))
    start = time.monotonic()
    await wire.send("GET", MAPS)
    assert time.monotonic() - start >= 0.2


async def test_reset(server: ApiServer, wire: Wire) -> None:
    server.faults.add(Fault("reset", verb="create"))
    with pytest.raises(aiohttp.ClientError):
        await wire.send("POST", MAPS, {"metadata": {"name": "a"}})


async def test_refused_connections_come_back_on_the_same_port(server: ApiServer, wire: Wire) -> None:
    back = asyncio.create_task(server.refuse(0.2))
    await asyncio.sleep(0)
    with pytest.raises(aiohttp.ClientError):
        await wire.send("POST", MAPS, {"metadata": {"name": "a"}})
    await back
    assert (await wire.send("GET", MAPS))[0] == 200


async def test_faults_over_the_wire(server: ApiServer, wire: Wire) -> None:
    code, made = await wire.send("POST", "/lab/faults", {"action": "status", "resource": "configmaps", "code": 500})
    assert code == 201
    assert (await wire.send("GET", MAPS))[0] == 500
    assert [fault["id"] for fault in (await wire.send("GET", "/lab/faults"))[1]] == [made["id"]]
    await wire.send("DELETE", f"/lab/faults/{made['id']}")
    assert (await wire.send("GET", MAPS))[0] == 200
    assert (await wire.send("POST", "/lab/faults", {"action": "nope"}))[0] == 400


async def test_fault_that_strikes_everything_can_be_taken_back(wire: Wire) -> None:
    await wire.send("POST", "/lab/faults", {"action": "status", "code": 503})
    assert (await wire.send("GET", "/readyz"))[0] == 503
    assert (await wire.send("DELETE", "/lab/faults"))[0] == 200
    assert (await wire.send("GET", "/readyz"))[0] == 200


async def test_control_is_for_masters_only(server: ApiServer) -> None:
    kubeconfig = json.loads(server.issue_kubeconfig("joe"))
    server.kubeconfig.write_text(json.dumps(kubeconfig))
    connector = aiohttp.TCPConnector(ssl=context_of(server))
    async with aiohttp.ClientSession(connector=connector) as session:
        assert (await Wire(session, server.url).send("GET", "/lab/faults"))[0] == 403


async def test_stalled_watch_delivers_later(server: ApiServer, wire: Wire) -> None:
    version = await version_of(wire)
    async with wire.session.get(f"{wire.url}{MAPS}?watch=1&resourceVersion={version}") as response:
        fault = server.faults.add(Fault("stall-watches", resource="configmaps"))
        await wire.send("POST", MAPS, {"metadata": {"name": "a"}})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await response.content.readline()
        server.faults.remove(fault)
        assert (await read_event(response))["type"] == "ADDED"


async def test_cut_watch_ends_in_an_error(server: ApiServer, wire: Wire) -> None:
    async with wire.session.get(f"{wire.url}{MAPS}?watch=1&resourceVersion={await version_of(wire)}") as response:
        code, body = await wire.send("POST", "/lab/watches/cut", {"resource": "configmaps"})
        assert (code, body) == (200, {"cut": 1})
        with pytest.raises(aiohttp.ClientError):
            async with asyncio.timeout(10):
                await response.content.read()


async def test_compaction_expires_watches_and_pages(server: ApiServer, wire: Wire) -> None:
    for name in ("a", "b", "c"):
        await wire.send("POST", MAPS, {"metadata": {"name": name}})
    _, page = await wire.send("GET", f"{MAPS}?limit=1")
    version = page["metadata"]["resourceVersion"]
    await wire.send("POST", MAPS, {"metadata": {"name": "d"}})
    server.compact()
    async with wire.session.get(f"{wire.url}{MAPS}?watch=1&resourceVersion={version}") as response:
        event = json.loads(await response.content.readline())
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
    code, body = await wire.send("GET", f"{MAPS}?limit=1&continue={page['metadata']['continue']}")
    assert (code, body["reason"]) == (410, "Expired")
    code, rest = await wire.send("GET", f"{MAPS}?continue={body['metadata']['continue']}")
    assert code == 200
    assert [item["metadata"]["name"] for item in rest["items"]] == ["b", "c", "d", "kube-root-ca.crt"]


async def test_history_is_bounded(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = Settings(directory=tmp_path_factory.mktemp("bounded"), history=5)
    async with ApiServer(settings) as server:
        connector = aiohttp.TCPConnector(ssl=context_of(server))
        async with aiohttp.ClientSession(connector=connector) as session:
            wire = Wire(session, server.url)
            version = await version_of(wire)
            for index in range(6):
                await wire.send("POST", MAPS, {"metadata": {"name": f"c{index}"}})
            async with session.get(f"{wire.url}{MAPS}?watch=1&resourceVersion={version}") as response:
                event = await read_event(response)
    assert event["type"] == "ERROR"


async def test_bookmarks_move_on(server: ApiServer, wire: Wire) -> None:
    version = await version_of(wire)
    path = f"{MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion={version}"
    async with wire.session.get(wire.url + path) as response:
        await wire.send("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": "s"}})
        event = json.loads(await response.content.readline())
    assert event["type"] == "BOOKMARK"
    assert int(event["object"]["metadata"]["resourceVersion"]) > int(version)


async def test_store_survives_a_restart(settings: Settings) -> None:
    async with ApiServer(settings) as server:
        connector = aiohttp.TCPConnector(ssl=context_of(server))
        async with aiohttp.ClientSession(connector=connector) as session:
            wire = Wire(session, server.url)
            _, made = await wire.send("POST", MAPS, {"metadata": {"name": "a"}, "data": {"x": "1"}})
            await wire.send("POST", MAPS, {"metadata": {"name": "b"}})
            await wire.send("DELETE", f"{MAPS}/b")
    async with ApiServer(settings) as server:
        connector = aiohttp.TCPConnector(ssl=context_of(server))
        async with aiohttp.ClientSession(connector=connector) as session:
            wire = Wire(session, server.url)
            assert (await wire.send("GET", f"{MAPS}/a")) == (200, made)
            assert (await wire.send("GET", f"{MAPS}/b"))[0] == 404
            _, later = await wire.send("POST", MAPS, {"metadata": {"name": "c"}})
    assert int(later["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"]) + 2


async def test_log_alone_restores_after_a_kill(settings: Settings) -> None:
    """A killed process writes no snapshot at its end: what the log holds has to be enough."""
    async with ApiServer(settings) as server:
        connector = aiohttp.TCPConnector(ssl=context_of(server))
        async with aiohttp.ClientSession(connector=connector) as session:
            wire = Wire(session, server.url)
            _, made = await wire.send("POST", MAPS, {"metadata": {"name": "a"}})
            kept = {name: (settings.directory / name).read_bytes() for name in ("store.json", "store.log")}
    for name, content in kept.items():
        (settings.directory / name).write_bytes(content)
    with (settings.directory / "store.log").open("ab") as log:
        log.write(b'["ADDED",99')
    async with ApiServer(settings) as server:
        entry = server.state.store.collection("configmaps").get("default", "a")
        assert entry is not None
        assert entry.object == made


async def test_counters(server: ApiServer, wire: Wire) -> None:
    await wire.send("GET", MAPS)
    await wire.send("GET", f"{MAPS}/nope")
    assert server.metrics.total("list", "configmaps", 200) == 1
    assert server.metrics.total("get", "configmaps", 404) == 1
    async with wire.session.get(f"{wire.url}{MAPS}?watch=1&resourceVersion={await version_of(wire)}"):
        _, text = await wire.send("GET", "/metrics")
        assert 'apiserver_longrunning_requests{resource="configmaps",verb="WATCH"} 1' in text
        assert 'apiserver_registered_watchers{resource="configmaps"} 1' in text


async def test_loopback_endpoints_by_switch(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("loose")
    async with ApiServer(Settings(directory=directory, allow_loopback_endpoints=True)) as server:
        connector = aiohttp.TCPConnector(ssl=context_of(server))
        async with aiohttp.ClientSession(connector=connector) as session:
            body = {"metadata": {"name": "e"}, "addressType": "IPv4", "endpoints": [{"addresses": ["127.0.1.5"]}]}
            path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
            assert (await Wire(session, server.url).send("POST", path, body))[0] == 201


async def test_static_tokens(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("tokens")
    tokens = directory / "tokens.csv"
    tokens.write_text('secret-one,ann,u1,"crew,system:masters"\nsecret-two,bob,u2\n')
    async with ApiServer(Settings(directory=directory, tokens_file=tokens)) as server:
        context = context_of(server)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            wire = Wire(session, server.url)
            assert (await wire.send("GET", MAPS, Authorization="Bearer secret-one"))[0] == 200
            assert (await wire.send("GET", MAPS, Authorization="Bearer secret-two"))[0] == 403
            assert (await wire.send("GET", MAPS, Authorization="Bearer wrong"))[0] == 401


async def test_keys_are_private(server: ApiServer) -> None:
    for name in ("ca.key", "sa.key", "apiserver.key", "kubelet-client.key", "admin.kubeconfig", "store.json"):
        assert (server.directory / name).stat().st_mode & 0o077 == 0, name
