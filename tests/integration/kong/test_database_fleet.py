"""A fleet of three gateways on one database, as processes: synced, refused, killed in the middle, under traffic."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import database_fleet
import httpx
import pytest
from database_fleet import HOST, Container, PlainGateways, build, run_fleet, sync_once

from konverge.errors import Busy
from konverge.kong.admin import AdminClient
from konverge.kong.database import owner_tag
from konverge.model.drift import DriftReport
from konverge.model.proxy import ZERO_HASH
from konverge.operate.clock import utc_now
from konverge.operate.connecting import ProxyGateway
from konverge.operate.drifting import audit_fleet, heal_drift
from konverge.operate.revisions import store_revision
from tests.unit.operate.drifting_town import LATER, NOW, Town

pytestmark = pytest.mark.lab

DEADLINE = 90.0
TAG = owner_tag("default", "shop")


def find_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[list[Container]]:
    async with run_fleet(tmp_path, find_ports(6)) as containers:
        yield containers


class Backend:
    """Answers every request with its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Backend:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.name)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(head + self.name.encode())
        self._writers.discard(writer)
        writer.close()


async def read_all(container: Container) -> dict[str, dict[str, Any]]:
    """Return what the database holds, without the times of changes."""
    found: dict[str, dict[str, Any]] = {}
    async with AdminClient(f"http://{HOST}:{container.proxy.admin_port}") as admin:
        for kind in ("services", "routes", "upstreams", "plugins"):
            found[kind] = {e["id"]: e async for e in admin.list_entities(kind, pause=0)}
        for owner in list(found["upstreams"]):
            items = admin.list_entities(f"upstreams/{owner}/targets", pause=0)
            found[f"targets of {owner}"] = {e["id"]: e async for e in items}
    for entities in found.values():
        for entity in entities.values():
            entity.pop("updated_at", None)
    return found


async def ask(container: Container, path: str) -> tuple[int, str]:
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        answer = await client.get(f"http://{HOST}:{container.proxy.proxy_port}{path}")
        return answer.status_code, answer.text


async def wait_until_gone(container: Container, path: str) -> None:
    """Wait until a path is routed no more: what is deleted from the database leaves the routers a moment later."""
    async with asyncio.timeout(20):
        while (await ask(container, path))[0] != 404:  # noqa: ASYNC110 - a router announces nothing
            await asyncio.sleep(0.05)


def proxies_of(fleet: list[Container]) -> list[Any]:
    return [container.proxy for container in fleet]


async def test_all_nodes_route_what_one_endpoint_was_told(fleet: list[Container]) -> None:
    async with Backend("blue") as blue, Backend("green") as green:
        for backend, number, count in ((blue, 1, 3), (green, 2, 1)):
            planned = await sync_once(proxies_of(fleet), build(number, backend.port, count), dry_run=True)
            assert not planned.plan.empty
            report = await sync_once(proxies_of(fleet), build(number, backend.port, count))
            assert report.ok, report.to_json()
            assert report.plan == planned.plan
            for container in fleet:
                assert await ask(container, "/r0") == (200, backend.name)
        for container in fleet:
            await wait_until_gone(container, "/r2")
        again = await sync_once(proxies_of(fleet), build(2, green.port, 1))
        assert (again.ok, again.plan.empty) == (True, True)


class UnsecuredGateway(ProxyGateway):
    """The real one, to a stand-in that speaks no TLS."""

    def _dial(self) -> AdminClient:
        return AdminClient(f"http://{self.proxy.ip}:{self.proxy.admin_port}")


async def test_a_gateway_tells_what_the_database_holds_and_pushes_nothing(fleet: list[Container]) -> None:
    """What the controller sees of a proxy that joins: the revision is there, or a sync has to write it first."""
    nobody: Any = None
    gateway = UnsecuredGateway(fleet[2].proxy, nobody, database_fleet.TOKEN, utc_now, TAG)
    async with contextlib.AsyncExitStack() as stack, Backend("blue") as blue:
        stack.push_async_callback(gateway.close)
        revision = build(1, blue.port)
        assert await gateway.loaded_hash() == ZERO_HASH
        with pytest.raises(Busy) as caught:
            await gateway.push(revision.content)
        assert caught.value.reason == "SyncUnderWay"
        assert (await sync_once(proxies_of(fleet), revision)).ok
        assert await gateway.loaded_hash() == revision.hash


async def test_drift_in_the_database_is_found_and_healed_and_what_is_not_ours_stays(fleet: list[Container]) -> None:
    town = Town(0, mode="db")
    town.proxies = proxies_of(fleet)
    gateways: Any = PlainGateways(town.proxies)

    async def audit() -> DriftReport:
        found = await town.fleet()
        return await audit_fleet(town.kube, found, gateways, town.read_entities, clock=lambda: LATER, second_look=0.0)

    admin_url = f"http://{HOST}:{fleet[1].proxy.admin_port}"
    async with contextlib.AsyncExitStack() as stack, Backend("blue") as blue, AdminClient(admin_url) as admin:
        stack.push_async_callback(gateways.close)
        built = build(0, blue.port)
        revision = await store_revision(town.kube, await town.fleet(), built, clock=lambda: NOW)
        town.enforce(revision)
        assert (await sync_once(town.proxies, revision)).ok
        caller = database_fleet.AdminCaller(lambda: admin)
        theirs = {"name": "theirs", "paths": ["/theirs"]}
        assert (await caller.call("POST", "/routes", theirs)).status == 201
        before = await read_all(fleet[0])
        assert (await audit()).drifted == ()
        assert (await caller.call("PATCH", "/routes/r0", {"paths": ["/moved"]})).ok
        assert (await caller.call("DELETE", "/routes/r1")).ok
        report = await audit()
        assert [len(row.differences) for row in report.drifted] == [3, 0, 0]
        assert {(d.change, d.entity) for d in report.drifted[0].differences} == {
            ("changed", "route r0"),
            ("missing", "route r1"),
            ("missing", "plugin correlation-id on route r1"),
        }
        healed = await heal_drift(town.kube, await town.fleet(), gateways, report)
        assert [row.healed for row in healed.proxies] == [True] * 3
        assert (await audit()).drifted == ()
        assert strip_times(await read_all(fleet[2])) == strip_times(before)
        for container in fleet:
            assert await ask(container, "/r0") == (200, "blue")
            assert await ask(container, "/r1") == (200, "blue")


def strip_times(found: dict[str, dict[str, Any]]) -> dict[str, list[Any]]:
    """Return entities without what Kong made up when they were created anew: the time, and a plugin's id."""
    made_up = {"created_at", "id"}
    return {
        kind: sorted(str({k: v for k, v in entity.items() if k not in made_up}) for entity in entities.values())
        for kind, entities in found.items()
    }


async def test_a_failure_half_way_leaves_everything_as_it_was(fleet: list[Container]) -> None:
    async with Backend("blue") as blue, AdminClient(f"http://{HOST}:{fleet[1].proxy.admin_port}") as admin:
        assert (await sync_once(proxies_of(fleet), build(1, blue.port))).ok
        taken = await database_fleet.AdminCaller(lambda: admin).call(
            "POST", "/routes", {"name": "theirs", "paths": ["/theirs"]}
        )
        assert taken.status == 201
        before = await read_all(fleet[0])
        report = await sync_once(proxies_of(fleet), build(2, blue.port, 1, name="theirs"))
        assert [failure.reason for failure in report.failed] == ["NameTaken"]
        assert (report.undone.lost, len(report.undone.undone)) == ((), 3)
        assert await read_all(fleet[2]) == before
        for container in fleet:
            assert await ask(container, "/r0") == (200, "blue")


async def test_unanswered_and_failed_writes_are_repeated(fleet: list[Container]) -> None:
    async with Backend("blue") as blue:
        await fleet[0].set_faults(write_500=2, write_stored_500=2)
        report = await sync_once(proxies_of(fleet), build(1, blue.port))
        assert report.ok, report.to_json()
        assert (await sync_once(proxies_of(fleet), build(1, blue.port))).plan.empty


async def test_no_request_fails_while_service_and_upstream_are_replaced(fleet: list[Container]) -> None:
    failures: list[tuple[int, str]] = []
    seen: dict[str, int] = {}
    stop = asyncio.Event()

    async def load(container: Container) -> None:
        async with httpx.AsyncClient(timeout=DEADLINE) as client:
            while not stop.is_set():
                answer = await client.get(f"http://{HOST}:{container.proxy.proxy_port}/r1")
                seen[answer.text] = seen.get(answer.text, 0) + 1
                if answer.status_code != 200:
                    failures.append((answer.status_code, answer.text))
                await asyncio.sleep(0.002)

    async with Backend("blue") as blue, Backend("green") as green:
        assert (await sync_once(proxies_of(fleet), build(1, blue.port))).ok
        async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
            for container in fleet:
                group.create_task(load(container))
            try:
                for number, backend in ((2, green), (3, blue), (4, green)):
                    report = await sync_once(proxies_of(fleet), build(number, backend.port))
                    assert report.ok, report.to_json()
            finally:
                stop.set()
    assert failures == []
    assert min(seen["blue"], seen["green"]) > 0
    assert set(seen) == {"blue", "green"}


@pytest.mark.parametrize("seed", [11, 12])
async def test_a_run_that_is_killed_is_finished_by_the_next(tmp_path: Path, seed: int) -> None:
    """kill -9 after a random number of writes; the seed is in the name of the test."""
    ports = find_ports(4)
    text = ",".join(f"{HOST}:{admin}:{proxy}" for admin, proxy in zip(ports[::2], ports[1::2], strict=True))
    async with run_fleet(tmp_path, ports) as fleet, Backend("blue") as blue, Backend("green") as green:
        assert (await sync_once(proxies_of(fleet), build(1, blue.port))).ok
        revision = build(2, green.port)
        (tmp_path / "revision").write_bytes(revision.content)
        await fleet[0].set_faults(write_delay=0.05)
        before = await read_all(fleet[0])
        process = await asyncio.create_subprocess_exec(
            sys.executable, database_fleet.__file__, str(tmp_path / "revision"), revision.marker, text
        )
        wanted = random.Random(seed).randint(1, 6)
        async with asyncio.timeout(DEADLINE):
            # Reading takes its time: there is no other pause between two looks.
            while process.returncode is None and await count_changes(fleet[1], before) < wanted:
                pass
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        # Half of a change is in the database now; traffic goes on.
        for container in fleet:
            assert (await ask(container, "/r0"))[0] == 200
        await fleet[0].set_faults(write_delay=0)
        report = await sync_once(proxies_of(fleet), revision)
        assert report.ok, report.to_json()
        assert (await sync_once(proxies_of(fleet), revision)).plan.empty
        for container in fleet:
            assert await ask(container, "/r0") == (200, "green")
        services = (await read_all(fleet[0]))["services"].values()
        assert [service["name"] for service in services] == ["s-2"]


async def count_changes(container: Container, before: dict[str, dict[str, Any]]) -> int:
    now = await read_all(container)
    kinds = set(before) | set(now)
    return sum(
        before.get(kind, {}).get(key) != now.get(kind, {}).get(key)
        for kind in kinds
        for key in {*before.get(kind, {}), *now.get(kind, {})}
    )
