"""A fleet with a database: the controller writes it once, onboards who routes by it, and finds what differs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest

from konverge.errors import Busy
from konverge.kong.database import Caller, Reply, owner_tag
from konverge.kong.database.reading import read_stored_hash
from konverge.kong.marker import ROUTE_NAME, add_marker
from konverge.kube.resources import EVENTS, PROXY_FLEETS
from konverge.model.proxy import ZERO_HASH, Mtls, Proxy
from konverge.model.revision import Revision
from konverge.operate import databases
from konverge.operate.fleets import list_instances, load_fleet
from konverge.operate.ports import DataPath
from tests.unit.controller.world import World
from tests.unit.kong.database.kong_in_memory import KongInMemory

TAG = owner_tag("default", "shop")
INFO = {"database": "postgres", "db_update_frequency": 0.01, "worker_state_update_frequency": 0.01}


class Node:
    """A proxy on the database of the fleet; its data path answers with what the marker in the database says."""

    def __init__(self, proxy: Proxy, kong: KongInMemory) -> None:
        self.proxy, self.kong = proxy, kong
        self.stuck = False

    async def identify(self) -> Mtls:
        return Mtls(subject=f"CN={self.proxy.name}")

    async def version(self) -> str:
        return "3.9.3"

    async def loaded_hash(self) -> str:
        return await read_stored_hash(self.kong, TAG) or ZERO_HASH

    async def push(self, _content: bytes) -> Any:
        raise Busy(f"{self.proxy.name} has a database", reason="SyncUnderWay")

    async def call(self, method: str, path: str, body: Any = None) -> Reply:
        if path == "/":
            return Reply(200, {"configuration": INFO})
        return await self.kong.call(method, path, body)

    def database(self) -> Caller:
        return self

    async def probe(self, marker: str, attempts: int) -> DataPath:
        found = self.kong.dump()
        routes = {r["id"] for r in found.get("routes", {}).values() if r["name"].startswith(ROUTE_NAME)}
        plugins = [p for p in found.get("plugins", {}).values() if (p["route"] or {}).get("id") in routes]
        good = not self.stuck and marker in [plugin["config"]["body"] for plugin in plugins]
        return DataPath(attempts, attempts if good else 0, "" if good else "HTTP 404 instead of 200")


class Nodes:
    """The proxies by name."""

    def __init__(self, kong: KongInMemory) -> None:
        self.kong = kong
        self.proxies: dict[str, Node] = {}
        self.markers: dict[str, str] = {}

    def add(self, name: str) -> None:
        proxy = Proxy(name=name, namespace="default", ip="127.0.0.2", uid=f"uid-{name}")
        self.proxies[name] = Node(proxy, self.kong)

    def reach(self, proxy: Proxy) -> Node:
        return self.proxies[proxy.name]


class Database(World):
    """A world whose proxies share a database."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        monkeypatch.setattr(databases, "PROBE_SECONDS", 0.2)
        self.kong = KongInMemory()
        self.gateways: Any = Nodes(self.kong)

    def draft(self) -> Revision:
        return build(self.content)

    async def services(self) -> Sequence[str]:
        return sorted(service["name"] for service in self.kong.dump().get("services", {}).values())


def build(name: str) -> Revision:
    tags = ["k8s-kind:Ingress", "k8s-name:web", "k8s-namespace:shop"]
    service = {"name": name, "host": f"{name}.test", "tags": tags, "routes": [{"name": "r", "paths": ["/r"]}]}
    document = {"_format_version": "3.0", "services": [service]}
    marked = add_marker(document, fleet="shop", revision=f"m-{name}", token="0123456789", flavor="traditional")
    return Revision(number=0, content=orjson.dumps(marked), marker=f"m-{name}")


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    opened = Database(monkeypatch)
    await opened.open(mode="db")
    await opened.controller.reconcile()
    yield opened
    opened.kong.close()


async def test_the_database_is_written_once_and_everybody_who_routes_by_it_is_in_traffic(world: Database) -> None:
    assert await world.services() == ["one"]
    assert world.ready() == {"p0", "p1", "p2"}
    status = await world.status()
    assert (status.current_revision, status.last_good_revision, status.counts.synced) == (1, 1, 3)
    writes = len(world.kong.writes)
    for _ in range(2):
        await world.controller.reconcile()
    assert len(world.kong.writes) == writes
    await world.change("two")
    assert await world.services() == ["two"]
    assert (await world.status()).last_good_revision == 2


async def test_a_newcomer_is_in_traffic_as_soon_as_it_routes_by_the_database(world: Database) -> None:
    writes = len(world.kong.writes)
    world.start("p8")
    world.start("p9")
    world.gateways.proxies["p9"].stuck = True
    await world.controller.reconcile()
    assert world.ready() == {"p0", "p1", "p2", "p8"}
    world.gateways.proxies["p9"].stuck = False
    world.be_patient()
    await world.controller.reconcile()
    assert world.ready() == {"p0", "p1", "p2", "p8", "p9"}
    assert len(world.kong.writes) == writes, "the database holds it already"


@pytest.mark.parametrize("foreign", [True, False], ids=["somebody else's revision", "emptied"])
async def test_a_database_that_was_changed_is_written_again_and_nobody_leaves_the_traffic(
    world: Database, foreign: bool
) -> None:
    fleet = await load_fleet(world.kube, "shop", "default")
    if foreign:
        proxies = [node.proxy for node in world.gateways.proxies.values()]
        await databases.sync_database(world.kube, fleet, world.gateways, build("theirs"), proxies)
    else:
        for route in list(world.kong.dump()["routes"]):
            await world.kong.call("DELETE", f"/routes/{route}")
    members = list(world.controller.site.roster)
    assert await world.controller.look(fleet, members)
    assert world.ready() == {"p0", "p1", "p2"}
    await world.controller.reconcile()
    assert await world.services() == ["one"]
    assert await world.gateways.proxies["p0"].loaded_hash() == build("one").hash
    assert {status.synced for status in (await list_instances(world.kube, fleet)).values()} == {True}
    assert {event["reason"] for event in world.kube.all(EVENTS)} >= {"Drifted"}


async def test_a_database_whose_drift_is_only_reported_is_left_alone(world: Database) -> None:
    await world.kube.patch(PROXY_FLEETS, "shop", {"spec": {"drift": "report"}}, "default")
    fleet = await load_fleet(world.kube, "shop", "default")
    proxies = [node.proxy for node in world.gateways.proxies.values()]
    await databases.sync_database(world.kube, fleet, world.gateways, build("theirs"), proxies)
    for _ in range(2):
        await world.controller.reconcile()
    world.restart()
    await world.controller.reconcile()
    assert await world.services() == ["theirs"]
    assert world.ready() == {"p0", "p1", "p2"}
