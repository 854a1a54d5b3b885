"""Syncing a fleet with a database: proxies that answer or not, route or not, one of which is written through."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from kong_in_memory import TAG, KongInMemory

from konverge.errors import CheckRefused, Unavailable
from konverge.kong.database import Caller, Reply, plan
from konverge.kong.marker import ROUTE_NAME, add_marker
from konverge.model.condition import ObjectRef
from konverge.model.fleet import Fleet, FleetSpec, FleetStatus
from konverge.model.proxy import Mtls, Phase, Proxy
from konverge.model.revision import Revision
from konverge.operate import databases
from konverge.operate.databases import DatabaseReport, plan_database, sync_database
from konverge.operate.ports import DataPath

TOKEN = "0123456789"
INGRESS = ["k8s-kind:Ingress", "k8s-name:web", "k8s-namespace:shop"]


class Node:
    """A proxy on the shared database; its data path answers with what the marker in the database says."""

    def __init__(self, name: str, kong: KongInMemory, *, database: str = "postgres") -> None:
        self.proxy = Proxy(name=name, namespace="default", ip="127.0.0.2")
        self.kong = kong
        self.settings = {
            "database": database,
            "db_update_frequency": 0.01,
            "worker_state_update_frequency": 0.01,
        }
        self.down = self.stuck = False
        self.calls = 0
        self.die_after = -1

    def _check(self) -> None:
        if self.down:
            raise Unavailable(f"{self.proxy.name} is down", reason="ProxyUnreachable", delay=0.001)

    async def identify(self) -> Mtls:
        self._check()
        return Mtls(subject=f"CN={self.proxy.name}")

    async def version(self) -> str:
        return "3.9.3"

    async def call(self, method: str, path: str, body: Any = None) -> Reply:
        self.down = self.down or self.calls == self.die_after
        self.calls += method != "GET"
        self._check()
        if path == "/":
            return Reply(200, {"configuration": self.settings})
        return await self.kong.call(method, path, body)

    def database(self) -> Caller:
        return self

    async def probe(self, marker: str, attempts: int) -> DataPath:
        self._check()
        found = self.kong.dump()
        routes = {r["id"] for r in found.get("routes", {}).values() if r["name"].startswith(ROUTE_NAME)}
        bodies = [
            p["config"]["body"] for p in found.get("plugins", {}).values() if (p["route"] or {}).get("id") in routes
        ]
        good = not self.stuck and (marker in bodies or not marker)
        return DataPath(attempts, attempts if good else 0, "" if good else "HTTP 404 instead of 200")


class Town:
    """Three proxies, one database."""

    def __init__(self, kong: KongInMemory) -> None:
        self.kong = kong
        self.nodes = {name: Node(name, kong) for name in ("gw-0", "gw-1", "gw-2")}
        self.fleet = Fleet(name="shop", namespace="default", spec=FleetSpec(proxy_service="s", mode="db"))

    def reach(self, proxy: Proxy) -> Any:
        return self.nodes[proxy.name]

    async def sync(self, revision: Revision, **options: Any) -> DatabaseReport:
        proxies = [node.proxy for node in self.nodes.values()]
        kube: Any = None
        gateways: Any = self
        return await sync_database(kube, self.fleet, gateways, revision, proxies, **options)


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Iterator[Town]:
    monkeypatch.setattr(databases, "PROBE_SECONDS", 0.2)
    kong = KongInMemory()
    yield Town(kong)
    kong.close()


def build(number: int, host: str = "example.com", **more: Any) -> Revision:
    route = {"name": "r", "paths": ["/r"], "tags": INGRESS, **more}
    document = {
        "_format_version": "3.0",
        "services": [{"name": f"s{number}", "host": host, "tags": INGRESS, "routes": [route]}],
        "consumers": [{"username": "a", "basicauth_credentials": [{"username": "u", "password": f"pw-{number}"}]}],
    }
    marked = add_marker(document, fleet="shop", revision=f"m{number}", token=TOKEN, flavor="traditional")
    return Revision(number=number, content=orjson.dumps(marked), marker=f"m{number}")


async def test_every_proxy_that_answers_is_synced(town: Town) -> None:
    town.nodes["gw-1"].down = True
    report = await town.sync(build(1))
    assert report.ok
    by_name = {outcome.proxy: outcome for outcome in report.outcomes}
    assert {name: outcome.ok for name, outcome in by_name.items()} == {"gw-0": True, "gw-1": False, "gw-2": True}
    assert by_name["gw-0"].loaded_hash == build(1).hash
    assert (by_name["gw-0"].phase, by_name["gw-0"].changed, by_name["gw-0"].version) == (Phase.SERVING, True, "3.9.3")
    assert (by_name["gw-1"].outcome.reason, by_name["gw-1"].retryable) == ("ProxyUnreachable", True)
    again = await town.sync(build(1))
    assert (again.plan.empty, again.ok, again.done) == (True, True, 0)
    assert not any(outcome.changed for outcome in again.outcomes)


async def test_a_change_replaces_and_going_back_is_another_change(town: Town) -> None:
    for revision in (build(1), build(2, "other.example.com"), build(1)):
        report = await town.sync(revision)
        assert report.ok
        assert [service["name"] for service in town.kong.dump()["services"].values()] == [f"s{revision.number}"]


async def test_a_dry_run_changes_nothing(town: Town) -> None:
    await town.sync(build(1))
    before, writes = town.kong.dump(), len(town.kong.writes)
    report = await town.sync(build(2), dry_run=True)
    assert (report.dry_run, report.plan.empty, report.outcomes) == (True, False, ())
    assert (town.kong.dump(), len(town.kong.writes)) == (before, writes)
    assert "pw-2" not in str(report.to_json()) + repr(report)
    kube: Any = None
    gateways: Any = town
    proxies = [node.proxy for node in town.nodes.values()]
    assert await plan_database(kube, town.fleet, gateways, build(2), proxies) == report.plan


async def test_a_refusal_is_told_of_every_proxy_and_leaves_nothing(town: Town) -> None:
    await town.sync(build(1))
    before = town.kong.dump()
    report = await town.sync(build(2, paths=["no slash"]))
    assert not report.ok
    assert {outcome.outcome.reason for outcome in report.outcomes} == {"ConfigurationRefused"}
    blamed = [blame.object for blame in report.outcomes[0].blamed]
    assert blamed == [ObjectRef(kind="Ingress", name="web", namespace="shop")]
    assert {outcome.loaded_hash for outcome in report.outcomes} == {build(1).hash}
    assert town.kong.dump() == before


async def test_a_failure_half_way_is_taken_back_passwords_included(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def load(kube: Any, fleet: Fleet, number: int) -> Revision:
        return build(number)

    monkeypatch.setattr(databases, "load_revision", load)
    await town.sync(build(1))
    town.fleet = town.fleet.model_copy(update={"status": FleetStatus(last_good_revision=1)})
    await town.kong.call("POST", "/routes", {"name": "taken", "paths": ["/t"]})
    before = town.kong.dump()
    report = await town.sync(build(2, name="taken"))
    assert not report.ok
    assert [failure.reason for failure in report.failed] == ["NameTaken"]
    assert report.undone.undone
    assert not report.undone.lost
    assert town.kong.dump() == before
    assert "operations were taken back" in report.outcomes[0].outcome.message


async def test_another_endpoint_goes_on_where_one_is_lost(town: Town) -> None:
    town.nodes["gw-0"].die_after = 3
    report = await town.sync(build(1))
    assert town.nodes["gw-0"].down
    assert not report.failed
    assert sorted(outcome.proxy for outcome in report.outcomes if outcome.ok) == ["gw-1", "gw-2"]


async def test_a_proxy_that_does_not_follow_holds_nobody_back(town: Town) -> None:
    await town.sync(build(1))
    town.nodes["gw-2"].stuck = True
    report = await town.sync(build(2))
    reasons = {outcome.proxy: outcome.outcome.reason for outcome in report.outcomes}
    assert reasons == {"gw-0": "Configured", "gw-1": "Configured", "gw-2": "DataPathFailed"}
    assert (await plan(town.kong, {}, TAG)).stored_hash == build(2).hash


async def test_what_nobody_routes_is_taken_back(town: Town) -> None:
    await town.sync(build(1))
    before = town.kong.dump()
    for node in town.nodes.values():
        node.stuck = True
    report = await town.sync(build(2))
    assert {outcome.outcome.reason for outcome in report.outcomes} == {"DataPathFailed"}
    held = {k: v for k, v in town.kong.dump().items() if k != "basicauth_credentials"}
    assert held == {k: v for k, v in before.items() if k != "basicauth_credentials"}
    # The password before is not known here: the credential keeps the new one, and that is told.
    assert [lost.reason for lost in report.undone.lost] == ["PasswordLost"]


async def test_deletions_that_fail_are_left_to_the_next_run(town: Town) -> None:
    await town.sync(build(1))
    town.kong.spoil = lambda method, path: "lost" if method == "DELETE" and path.startswith("/services") else ""
    report = await town.sync(build(2))
    assert {outcome.outcome.reason for outcome in report.outcomes} == {"DeletionsPending"}
    assert not report.ok
    town.kong.spoil = lambda method, path: ""
    again = await town.sync(build(2))
    assert again.ok
    assert [str(operation) for operation in again.plan.operations] == ["delete service s1"]


async def test_without_a_marker_time_has_to_do(town: Town) -> None:
    revision = build(1)
    report = await town.sync(Revision(number=1, content=revision.content))
    assert report.ok
    assert report.outcomes[0].loaded_hash == hashlib.md5(revision.content).hexdigest()


async def test_a_fleet_without_database_or_without_proxies(town: Town) -> None:
    for node in town.nodes.values():
        node.settings["database"] = "off"
    with pytest.raises(CheckRefused) as caught:
        await town.sync(build(1))
    assert caught.value.reason == "NoDatabase"
    for node in town.nodes.values():
        node.down = True
    report = await town.sync(build(1))
    assert {outcome.outcome.reason for outcome in report.outcomes} == {"ProxyUnreachable"}
    with pytest.raises(CheckRefused, match="gw-0 is down"):
        await town.sync(build(1), dry_run=True)
