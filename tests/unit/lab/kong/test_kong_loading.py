"""POST /config on a running node: hashes, lock, limits, storage, delays, faults."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from kong_lab import HOST, configuration, get, post, running, url

from konverge.lab.kong.node import CannotStart
from konverge.lab.kong.settings import Timing
from konverge.lab.kong.wire.broken import BrokenFiles

ZEROS = "0" * 32


def md5(text: bytes) -> str:
    return hashlib.md5(text).hexdigest()


async def shown_hash(node: Any) -> str:
    return str((await get(node, "status", "/status")).json()["configuration_hash"])


async def test_hash_is_the_md5_of_the_text() -> None:
    text = json.dumps(configuration(1)).encode()
    async with running() as node:
        assert await shown_hash(node) == ZEROS
        await post(node, text)
        assert await shown_hash(node) == md5(text)
        assert (await post(node, text, "?check_hash=1")).status_code == 304
        await post(node, text, Content_Type="application/json")
        assert await shown_hash(node) not in (md5(text), ZEROS)


async def test_a_json_document_has_another_hash_on_every_node() -> None:
    text = json.dumps(configuration(1)).encode()
    async with running() as one, running() as other:
        for node in (one, other):
            await post(node, text, Content_Type="application/json")
        assert one.snapshot.hash != other.snapshot.hash


async def test_paging() -> None:
    services = [
        {"name": f"s{at}", "url": "http://h", "tags": ["even"] if at % 2 == 0 else ["odd"]} for at in range(5)
    ]
    async with running() as node:
        await post(node, {"_format_version": "3.0", "services": services})
        names: list[str] = []
        path = "/services?size=2"
        while path:
            page = (await get(node, "admin", path)).json()
            names += [item["name"] for item in page["data"]]
            path = page["next"]
        assert sorted(names) == [f"s{at}" for at in range(5)]
        tagged = (await get(node, "admin", "/services?tags=even")).json()["data"]
        assert len(tagged) == 3
        assert (await get(node, "admin", "/services?offset=!")).json()["code"] == 7
        assert (await get(node, "admin", "/tags/odd")).json()["data"][0]["entity_name"] == "services"


async def test_nested_reads_and_refused_writes() -> None:
    async with running() as node:
        await post(node, configuration(1, plugins=[{"name": "key-auth"}]))
        route = (await get(node, "admin", "/services/s/routes/r")).json()
        assert (await get(node, "admin", f"/routes/{route['id']}/service")).json()["name"] == "s"
        assert (await get(node, "admin", "/services/s/plugins")).json()["data"][0]["name"] == "key-auth"
        assert (await get(node, "admin", "/services/nope/routes")).status_code == 404
        refused = await get(node, "admin", f"/routes/{route['id']}", method="DELETE")
        message = "cannot delete 'routes' entities when not using a database"
        assert (refused.status_code, refused.json()["message"]) == (405, message)


async def test_the_dump_loads_again_and_has_the_size_of_a_real_one() -> None:
    services = [
        {
            "name": f"svc-{at:06d}",
            "url": "http://127.0.11.1:9000",
            "routes": [{"name": f"rt-{at:06d}", "paths": [f"/big/{at:06d}"], "hosts": [f"h{at}.example.com"]}],
        }
        for at in range(100)
    ]
    async with running() as node:
        await post(node, {"_format_version": "3.0", "services": services})
        before = node.snapshot.entities
        answer = await get(node, "admin", "/config")
        # A real Kong 3.9.3 answered with 89,766 bytes to this configuration.
        assert abs(len(answer.content) - 89_766) < 10
        assert (await post(node, answer.json()["config"].encode())).status_code == 201
        assert node.snapshot.entities["routes"].keys() == before["routes"].keys()


async def test_two_posts_at_once_and_the_lock() -> None:
    routes = [{"name": f"r{at}", "paths": [f"/{at}"]} for at in range(1200)]
    text = json.dumps(configuration(1, routes=routes)).encode()
    timing = Timing.instant()
    timing.lock_per_route = 0.002
    async with running(timing=timing) as node:
        answers = await asyncio.gather(post(node, text), post(node, text))
        assert sorted(answer.status_code for answer in answers) == [201, 429]
        busy = next(answer for answer in answers if answer.status_code == 429)
        assert busy.json() == {"message": "Currently loading previous configuration"}
        assert busy.headers["retry-after"] == "10"
        assert (await post(node, text)).status_code == 201


async def test_a_killed_worker_leaves_the_lock_for_its_ttl() -> None:
    timing = Timing.instant()
    timing.lock_ttl = 0.2
    async with running(timing=timing) as node:
        node.lock.orphan()
        assert (await post(node, configuration(1))).status_code == 429
        assert (await get(node, "status", "/status")).status_code == 200
        await asyncio.sleep(0.2)
        assert (await post(node, configuration(1))).status_code == 201


@pytest.mark.parametrize(("delay", "status"), [(3600.0, 404), (0.05, 200)])
async def test_routing_follows_later_than_the_hash(delay: float, status: int) -> None:
    timing = Timing.instant()
    timing.router_base, timing.router_per_route, timing.router_max = delay, 1e-9, delay
    text = json.dumps(configuration(1)).encode()
    async with running(timing=timing) as node:
        assert (await post(node, text)).status_code == 201
        assert await shown_hash(node) == md5(text)
        assert (await get(node, "status", "/status/ready")).status_code == 200
        if status == 404:
            assert (await get(node, "proxy", "/r")).status_code == 404
            return
        async with asyncio.timeout(10):
            # 502: routed, but nobody is there.
            while (await get(node, "proxy", "/r")).status_code != 502:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_configuration_survives_a_restart_on_the_same_prefix(tmp_path: Path) -> None:
    text = json.dumps(configuration(1)).encode()
    async with running(prefix=tmp_path) as node:
        await post(node, text)
    async with running(prefix=tmp_path) as node:
        assert await shown_hash(node) == md5(text)
        assert (await get(node, "proxy", "/r")).status_code == 502
        assert (await get(node, "status", "/status/ready")).status_code == 200
    async with running(prefix=tmp_path / "other") as node:
        assert await shown_hash(node) == ZEROS


async def test_a_configuration_file_wins_at_start_and_at_hup(tmp_path: Path) -> None:
    path = tmp_path / "kong.yaml"
    path.write_text(json.dumps(configuration(1)))
    async with running(prefix=tmp_path / "p", declarative_config=path) as node:
        assert await shown_hash(node) == md5(path.read_bytes())
        await post(node, configuration(2))
        assert await shown_hash(node) != md5(path.read_bytes())
        node.hang_up()
        async with asyncio.timeout(5):
            while node.snapshot.hash != md5(path.read_bytes()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    path.write_text('{"_format_version": "3.0", "services": [{"name": "x"}]}')
    with pytest.raises(CannotStart, match="required field missing"):
        async with running(declarative_config=path):
            pass


async def test_what_does_not_fit_keeps_the_old(tmp_path: Path) -> None:
    async with running(prefix=tmp_path, lmdb_size=100_000) as node:
        await post(node, configuration(1))
        before = await shown_hash(node)
        routes = [{"name": f"r{at}", "paths": [f"/{at}"]} for at in range(50)]
        full = await post(node, configuration(1, routes=routes))
        assert full.status_code == 413
        assert full.json()["message"].startswith("Configuration does not fit in LMDB database")
        assert await shown_hash(node) == before


async def test_bodies_over_the_buffer_are_not_seen() -> None:
    text = json.dumps(configuration(1)).encode().ljust(4096)
    async with running(client_max_body=1 << 20, body_buffer=1024) as node:
        assert (await post(node, text)).json() == {"message": "expected a declarative configuration"}
        answer = await post(node, text, Content_Type="application/json")
        assert answer.json() == {"message": "Cannot parse JSON body"}


@pytest.mark.parametrize("sent", [0, 50])
async def test_an_interrupted_body_changes_nothing(sent: int) -> None:
    text = json.dumps(configuration(1)).encode()
    async with running() as node:
        reader, writer = await asyncio.open_connection(HOST, node.port("admin"))
        head = f"POST /config HTTP/1.1\r\nHost: x\r\nContent-Type: text/yaml\r\nContent-Length: {len(text)}\r\n\r\n"
        writer.write(head.encode() + text[:sent])
        writer.write_eof()
        assert await reader.read() == b"", "the connection just ends"
        assert await shown_hash(node) == ZEROS
        writer.close()


async def test_expect_continue_and_early_refusal() -> None:
    async with running() as node:
        reader, writer = await asyncio.open_connection(HOST, node.port("admin"))
        head = "POST /config HTTP/1.1\r\nHost: x\r\nContent-Type: text/yaml\r\nExpect: 100-continue\r\n"
        writer.write(f"{head}Content-Length: 11534336\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        writer.close()
        text = json.dumps(configuration(1)).encode()
        reader, writer = await asyncio.open_connection(HOST, node.port("admin"))
        writer.write(f"{head}Content-Length: {len(text)}\r\n\r\n".encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(text)
        assert (await reader.readline()).startswith(b"HTTP/1.1 201 ")
        writer.close()


async def test_faults_of_loading() -> None:
    text = json.dumps(configuration(1)).encode()
    async with running() as node:
        node.faults.update({"stored_500": 1})
        assert (await post(node, text)).status_code == 500
        assert await shown_hash(node) == md5(text), "stored all the same"
        node.faults.update({"wrong_hash": 1})
        assert await shown_hash(node) != md5(text)
        node.faults.update({"wrong_hash": 0, "exiting_503": 1})
        assert (await post(node, text)).json() == {"message": "Kong currently exiting"}
        node.faults.update({"busy": 1})
        assert (await post(node, text)).status_code == 429
        node.faults.update({"lmdb_full": 1})
        assert (await post(node, text)).status_code == 413
        node.faults.update({"reset_after": 10})
        with pytest.raises(httpx.TransportError):
            await post(node, text)
        node.faults.update({"reset_after": -1, "truncate_after": 100})
        with pytest.raises(httpx.TransportError):
            await post(node, text)
        node.faults.update({"truncate_after": -1, "refuse_on": "admin"})
        with pytest.raises(httpx.TransportError):
            await post(node, text)
        node.faults.update({"refuse_on": "", "router_extra": -1.0})
        other = configuration(1)
        other["services"][0]["routes"][0]["paths"] = ["/new"]
        assert (await post(node, other)).status_code == 201
        assert (await get(node, "proxy", "/new")).status_code == 404, "a rebuild that failed"
        assert (await post(node, text)).status_code == 201


async def test_hanging_requests_do_not_outlive_the_node() -> None:
    async with running() as node:
        node.faults.update({"hang": 1, "hang_on": "status"})
        asking = asyncio.create_task(get(node, "status", "/status"))
        while not node.stats.busy:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert (await get(node, "status", "/status")).status_code == 200
    with pytest.raises(httpx.TransportError):
        await asking


async def test_draining() -> None:
    async with running() as node:
        await post(node, configuration(1))
        bad = await get(node, "status", "/status/ready", method="POST", json={"status": "ready"})
        assert bad.status_code == 400
        done = await get(node, "status", "/status/ready", method="POST", json={"status": "draining"})
        assert done.status_code == 204
        ready = await get(node, "status", "/status/ready")
        assert (ready.status_code, ready.json()) == (503, {"message": "draining"})
        assert (await post(node, configuration(2))).status_code == 201
        assert (await get(node, "status", "/status/ready")).status_code == 503
        assert (await get(node, "proxy", "/r")).status_code == 502, "traffic is still served"


async def test_schema_validation() -> None:
    async with running() as node:
        async with httpx.AsyncClient(verify=False) as client:
            good = await client.post(
                url(node, "admin", "/schemas/plugins/validate"), json={"name": "cors", "config": {"max_age": 1}}
            )
            assert good.json() == {"message": "schema validation successful"}
            bad = await client.post(url(node, "admin", "/schemas/services/validate"), json={"port": 99999})
        assert bad.json()["fields"] == {
            "port": "value should be between 0 and 65535",
            "host": "required field missing",
        }
        assert bad.json()["message"].startswith("2 schema violations (host: required field missing; port: ")
        plugin = (await get(node, "admin", "/schemas/plugins/key-auth")).json()
        assert "key_names" in json.dumps(plugin)


async def test_a_hundred_nodes_in_one_process() -> None:
    async with asyncio.timeout(60):
        nodes = [running() for _ in range(100)]
        started = [await node.__aenter__() for node in nodes]
        try:
            text = json.dumps(configuration(1)).encode()
            await asyncio.gather(*(post(node, text) for node in started))
            assert {node.snapshot.hash for node in started} == {md5(text)}
            assert len({id(node.registry) for node in started}) == 1, "schemas are shared"
        finally:
            for node in nodes:
                await node.__aexit__(None, None, None)


async def test_broken_files_at_start(tmp_path: Path) -> None:
    with pytest.raises(BrokenFiles, match="No such file"):
        async with running(tls=True, admin_cert=tmp_path / "no.crt", admin_key=tmp_path / "no.key"):
            pass
