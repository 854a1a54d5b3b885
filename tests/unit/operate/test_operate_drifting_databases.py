"""Audits of a database: which entities of ours differ, redacted; others' are left alone; healed as a sync would."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from konverge.errors import CheckRefused, Unavailable
from konverge.kong.declarative import serialise
from konverge.kong.marker import TAG as MARKER_TAG
from konverge.kong.marker import add_marker
from konverge.kube.resources import EVENTS, PROXY_FLEETS, PROXY_INSTANCES
from konverge.model.condition import find_condition
from konverge.model.drift import DriftKind, DriftReport
from konverge.model.revision import Revision
from konverge.operate import claiming, databases, drifting
from konverge.operate.databases import sync_database
from konverge.operate.drift_records import record_drift
from konverge.operate.drifting import audit_fleet, describe_drift, heal_drift
from konverge.operate.revisions import store_revision
from tests.unit.controller.test_controller_database import TAG, Nodes
from tests.unit.kong.database.kong_in_memory import KongInMemory
from tests.unit.operate.drifting_town import KEY, LATER, NOW, Town, document

K = DriftKind
THEIRS = "another-secret-value"


class DatabaseTown(Town):
    """Three proxies on one database, which holds the second of two revisions."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(mode="db", **spec)
        self.kong = KongInMemory()
        self.nodes: Any = Nodes(self.kong)
        for proxy in self.proxies:
            self.nodes.add(proxy.name)

    async def open(self) -> DatabaseTown:
        for paths in (("/a",), ("/a", "/b")):
            await self.write(await self.revise(*paths))
        self.kong.log.clear()
        return self

    async def revise(self, *paths: str) -> Revision:
        """Store a revision and put it in force, without writing it to the database."""
        number = len(paths)
        given = document(*paths)
        given["consumers"][0]["hmacauth_credentials"] = [{"username": "ann-hmac", "secret": KEY}]
        marked = add_marker(given, fleet="shop", revision=f"m{number}", token="0123456789", flavor="traditional")
        draft = Revision(number=0, content=serialise(marked), marker=f"m{number}")
        revision = await store_revision(self.kube, await self.fleet(), draft, clock=lambda: NOW)
        self.enforce(revision)
        return revision

    async def write(self, revision: Revision) -> None:
        report = await sync_database(self.kube, await self.fleet(), self.nodes, revision, self.proxies)
        assert report.ok, report.to_json()

    async def call(self, method: str, path: str, **body: Any) -> None:
        """Somebody works on the database by hand."""
        reply = await self.kong.call(method, path, body)
        assert reply.ok, reply

    def find(self, kind: str, name: str) -> str:
        """The id of an entity."""
        found = self.kong.dump()[kind].values()
        return str(next(e["id"] for e in found if name in (e.get("name"), e.get("username"))))

    async def audit(self, **options: Any) -> DriftReport:
        options = {"clock": lambda: LATER, "second_look": 0.0, **options}
        return await audit_fleet(self.kube, await self.fleet(), self.nodes, self.read_entities, **options)

    async def heal(self, report: DriftReport, **options: Any) -> DriftReport:
        return await heal_drift(self.kube, await self.fleet(), self.nodes, report, **options)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "PROBE_SECONDS", 0.2)


@pytest.fixture
async def town() -> AsyncIterator[DatabaseTown]:
    opened = await DatabaseTown().open()
    yield opened
    opened.kong.close()


def kinds(report: DriftReport) -> list[DriftKind]:
    return [row.drift.kind for row in report.proxies]


def differences(report: DriftReport) -> set[tuple[str, str, str]]:
    return {(d.change, d.entity, d.field) for row in report.proxies for d in row.differences}


async def change_by_hand(town: DatabaseTown) -> None:
    """A route is changed, one deleted, one of our tag added; a secret is another one."""
    await town.call("PATCH", f"/routes/{town.find('routes', 'ra')}", paths=["/elsewhere"])
    await town.call("DELETE", f"/routes/{town.find('routes', 'rb')}")
    await town.call("POST", "/routes", name="by-hand", paths=["/x"], tags=[TAG])
    await town.call("PATCH", f"/hmac-auths/{town.find('hmacauth_credentials', 'ann-hmac')}", secret=THEIRS)


async def test_a_database_in_sync_is_read_through_one_proxy_and_nothing_is_written(town: DatabaseTown) -> None:
    town.kube.calls.clear()
    report = await town.audit()
    assert (kinds(report), report.drifted, differences(report)) == ([K.IN_SYNC] * 3, (), set())
    assert (town.kube.writes, town.kong.writes) == ([], [])
    # Every collection is read once, whatever the number of proxies.
    assert sum(entry == ("GET", "/consumers") for entry in town.kong.log) == 1


async def test_what_was_changed_by_hand_is_named_entity_by_entity_and_no_secret(town: DatabaseTown) -> None:
    await change_by_hand(town)
    report = await town.audit()
    assert kinds(report) == [K.FOREIGN] * 3
    assert report.proxies[0].loaded_hash == report.hash
    assert differences(report) == {
        ("changed", "route ra", "paths"),
        ("missing", "route rb", ""),
        ("added", "route by-hand", ""),
        ("changed", "hmacauth credential of consumer ann", "secret"),
    }
    paths = next(d for d in report.proxies[0].differences if d.field == "paths")
    assert ("elsewhere" in paths.loaded, "elsewhere" in paths.desired) == (True, False)
    assert "says that it holds revision 2, and 4 entities differ" in describe_drift(report.drifted[0])
    assert [row.note for row in report.proxies] == ["", *["its database is that of p0"] * 2]
    shown = report.model_dump_json() + repr(report)
    assert KEY not in shown
    assert THEIRS not in shown
    assert town.kong.writes[4:] == [], "looking changes nothing"


async def test_what_is_not_ours_is_no_drift_and_stays(town: DatabaseTown) -> None:
    await town.call("POST", "/routes", name="theirs", paths=["/theirs"])
    await town.call("POST", "/routes", name="others", paths=["/others"], tags=["konverge-fleet:default.other"])
    report = await town.audit()
    assert (kinds(report), differences(report)) == ([K.IN_SYNC] * 3, set())
    await town.call("DELETE", f"/routes/{town.find('routes', 'rb')}")
    report = await town.audit()
    assert differences(report) == {("missing", "route rb", "")}
    await town.heal(report)
    assert town.find("routes", "theirs")
    assert town.find("routes", "others")


async def test_an_old_revision_in_the_database_is_named(town: DatabaseTown) -> None:
    await town.write(await drifting.load_revision(town.kube, await town.fleet(), 1))
    report = await town.audit()
    assert {(row.drift.kind, row.drift.revision) for row in report.proxies} == {(K.OLD, 1)}
    assert differences(report) == {("missing", "route rb", "")}


async def test_an_emptied_database_is_told_and_filled_whatever_the_policy() -> None:
    town = await DatabaseTown(drift="report").open()
    for kind in ("routes", "services", "consumers"):
        for entity in town.kong.dump()[kind]:
            await town.call("DELETE", f"/{kind}/{entity}")
    report = await town.audit()
    assert kinds(report) == [K.LOST] * 3
    assert [row.healed for row in (await town.heal(report)).proxies] == [True] * 3
    assert kinds(await town.audit()) == [K.IN_SYNC] * 3
    town.kong.close()


async def test_a_marker_that_is_gone_is_drift_although_no_entity_differs(town: DatabaseTown) -> None:
    marker = next(r["id"] for r in town.kong.dump()["routes"].values() if MARKER_TAG in (r["tags"] or ()))
    await town.call("DELETE", f"/routes/{marker}")
    row = (await town.audit()).drifted[0]
    assert (row.drift.kind, row.differences) == (K.FOREIGN, ())
    assert "marker" in row.note


async def test_a_sync_under_way_is_no_drift(town: DatabaseTown) -> None:
    await change_by_hand(town)
    report = await town.audit(clock=lambda: NOW + timedelta(seconds=5))
    assert (kinds(report), report.drifted) == ([K.SYNCING] * 3, ())


async def test_what_is_right_at_the_second_look_is_no_drift(
    town: DatabaseTown, monkeypatch: pytest.MonkeyPatch
) -> None:
    await town.revise("/a", "/b", "/c")
    looks: list[int] = []
    read = drifting.read_contents

    async def look(kube: Any, fleet: Any, gateways: Any, revision: Revision, proxies: Any) -> Any:
        found = await read(kube, fleet, gateways, revision, proxies)
        looks.append(found.differing if found else -1)
        await town.write(revision)
        return found

    monkeypatch.setattr(drifting, "read_contents", look)
    assert kinds(await town.audit()) == [K.IN_SYNC] * 3
    assert looks == [1, 0]


async def test_silence_is_no_drift_and_another_proxy_is_asked(town: DatabaseTown) -> None:
    await change_by_hand(town)

    async def refuse() -> Any:
        raise Unavailable("down", reason="ProxyUnreachable")

    town.nodes.proxies["p0"].identify = refuse
    report = await town.audit()
    assert kinds(report) == [K.SILENT, K.FOREIGN, K.FOREIGN]
    assert len(report.proxies[1].differences) == 4
    for node in town.nodes.proxies.values():
        node.identify = refuse
    assert kinds(await town.audit()) == [K.SILENT] * 3


async def test_long_lists_are_cut_and_counted(town: DatabaseTown) -> None:
    for n in range(drifting.LISTED + 7):
        await town.call("POST", "/routes", name=f"x{n}", paths=[f"/x{n}"], tags=[TAG])
    row = (await town.audit()).drifted[0]
    assert (len(row.differences), row.uncounted) == (drifting.LISTED, 7)


async def test_drift_is_healed_entity_by_entity_and_shown_everywhere(town: DatabaseTown) -> None:
    await change_by_hand(town)
    report = await town.audit()
    await town.heal(report)  # makes every proxy known
    await change_by_hand(town)
    report = await town.audit()
    await record_drift(town.kube, await town.fleet(), report, clock=lambda: LATER)
    status = town.kube.one(PROXY_INSTANCES, "p1")["status"]
    assert (status["reason"], status["synced"]) == ("ForeignConfiguration", False)
    found = find_condition((await town.fleet()).status.conditions, "Drift")
    assert found is not None
    assert found.status == "True"
    assert len(town.kube.all(EVENTS)) == 3
    before = len(town.kong.writes)
    healed = await town.heal(report)
    assert [row.healed for row in healed.proxies] == [True] * 3
    assert len(town.kong.writes) - before == 4, "nothing but what differs is written"
    await record_drift(town.kube, await town.fleet(), await town.audit(), clock=lambda: LATER)
    assert town.kube.one(PROXY_INSTANCES, "p1")["status"]["reason"] == "Configured"
    found = find_condition((await town.fleet()).status.conditions, "Drift")
    assert found is not None
    assert found.status == "False"


async def test_with_the_policy_report_nothing_is_written_unless_asked_for() -> None:
    town = await DatabaseTown(drift="report").open()
    await change_by_hand(town)
    report, writes = await town.audit(), len(town.kong.writes)
    assert [row.healed for row in (await town.heal(report)).proxies] == [None] * 3
    assert len(town.kong.writes) == writes
    assert [row.healed for row in (await town.heal(report, everything=True)).proxies] == [True] * 3
    town.kong.close()


async def test_a_paused_fleet_is_left_alone(town: DatabaseTown) -> None:
    await change_by_hand(town)
    report, writes = await town.audit(), len(town.kong.writes)
    town.kube.one(PROXY_FLEETS, "shop")["spec"]["paused"] = True
    with pytest.raises(CheckRefused, match="paused"):
        await town.heal(report)
    assert len(town.kong.writes) == writes


async def test_a_sync_that_was_faster_is_not_undone(town: DatabaseTown) -> None:
    await change_by_hand(town)
    report = await town.audit()
    held = claiming.claim_fleet(town.kube, await town.fleet())
    async with held:
        await town.write(await town.revise("/a", "/b", "/c"))
    writes = len(town.kong.writes)
    assert [row.healed for row in (await town.heal(report)).proxies] == [None] * 3
    assert len(town.kong.writes) == writes
