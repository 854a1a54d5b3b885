"""Audits: who runs something else, what differs, who is brought back; slowly, and without a secret."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from drifting_town import KEY, LATER, NOW, Town, document, load

from konverge.errors import CheckRefused, Unavailable
from konverge.kong.declarative import Configuration, serialise
from konverge.kube.resources import EVENTS, PROXY_FLEETS, PROXY_INSTANCES
from konverge.model.condition import find_condition
from konverge.model.drift import DriftKind, DriftReport
from konverge.model.proxy import ZERO_HASH, Proxy
from konverge.operate import drifting
from konverge.operate.drift_records import record_drift
from konverge.operate.drifting import audit_fleet, describe_drift, heal_drift

K = DriftKind


@pytest.fixture
async def town() -> Town:
    return await settle(Town())


async def settle(town: Town) -> Town:
    """Two revisions are stored; every proxy runs the second."""
    await town.store(serialise(document("/a", key=KEY)))
    town.enforce(await town.store(serialise(document("/a", "/b", key=KEY))))
    return town


async def audit(town: Town, **options: Any) -> DriftReport:
    options = {"clock": lambda: LATER, "second_look": 0.0, **options}
    return await audit_fleet(town.kube, await town.fleet(), town.gateways, town.read_entities, **options)


def kinds(report: DriftReport) -> list[DriftKind]:
    return [row.drift.kind for row in report.proxies]


async def test_a_fleet_in_sync_is_not_read_and_nothing_is_written(town: Town) -> None:
    town.kube.calls.clear()
    report = await audit(town)
    assert kinds(report) == [K.IN_SYNC] * 3
    assert town.read == []
    assert town.kube.writes == []


async def test_what_was_posted_by_hand_is_named_entity_by_entity(town: Town) -> None:
    town.post_by_hand("p1", document("/a", "/evil", key=KEY))
    report = await audit(town)
    assert kinds(report) == [K.IN_SYNC, K.FOREIGN, K.IN_SYNC]
    assert {(d.change, d.entity) for d in report.drifted[0].differences} == {
        ("added", "route revil"),
        ("missing", "route rb"),
    }
    assert town.read == ["p1"]


async def test_secrets_are_not_in_the_report(town: Town) -> None:
    town.post_by_hand("p1", document("/a", "/b", key="another-secret-key"))
    report = await audit(town)
    assert report.drifted[0].differences
    shown = report.model_dump_json() + repr(report)
    assert KEY not in shown
    assert "another-secret-key" not in shown


async def test_an_old_revision_is_named_and_compared_without_touching_the_proxy(town: Town) -> None:
    old = await drifting.load_revision(town.kube, await town.fleet(), 1)
    load(town.gateways.proxies["p2"], old)
    row = (await audit(town)).drifted[0]
    assert (row.proxy, row.drift.kind, row.drift.revision) == ("p2", K.OLD, 1)
    assert [(d.change, d.entity) for d in row.differences] == [("missing", "route rb")]
    assert town.read == []


async def test_a_lost_configuration_is_told(town: Town) -> None:
    town.gateways.proxies["p0"].loaded = ZERO_HASH
    row = (await audit(town)).drifted[0]
    assert (row.drift.kind, row.differences, row.note) == (K.LOST, (), "it has no entities")


async def test_silence_is_no_drift(town: Town) -> None:
    town.gateways.proxies["p0"].sick = Unavailable("down")
    report = await audit(town)
    assert kinds(report) == [K.SILENT, K.IN_SYNC, K.IN_SYNC]
    assert report.drifted == ()


async def test_a_sync_under_way_is_no_drift(town: Town) -> None:
    old = await drifting.load_revision(town.kube, await town.fleet(), 1)
    load(town.gateways.proxies["p2"], old)
    report = await audit(town, clock=lambda: NOW + timedelta(seconds=5))
    assert kinds(report)[2] is K.SYNCING
    assert report.drifted == ()


async def test_what_is_right_at_the_second_look_is_no_drift(town: Town) -> None:
    current = await drifting.load_revision(town.kube, await town.fleet(), 2)
    fake, answers = town.gateways.proxies["p1"], iter(["f" * 32])

    async def loaded_hash() -> str:
        return next(answers, current.hash)

    fake.loaded_hash = loaded_hash  # type: ignore[method-assign]
    assert kinds(await audit(town)) == [K.IN_SYNC] * 3
    assert next(answers, "") == ""
    assert town.read == []


async def test_a_revision_pinned_meanwhile_is_what_counts(town: Town) -> None:
    town.kube.one(PROXY_FLEETS, "shop")["spec"]["pinnedRevision"] = 1
    report = await audit(town)
    assert report.revision == 1
    assert [row.drift.revision for row in report.drifted] == [2, 2, 2]


async def test_few_proxies_are_paged_and_equal_ones_once(monkeypatch: pytest.MonkeyPatch) -> None:
    town = await settle(Town(proxies=8))
    for i in range(4):
        town.post_by_hand(f"p{i}", document("/same"))
    for i in range(4, 8):
        town.post_by_hand(f"p{i}", document(f"/other{i}"))
    report = await audit(town)
    assert town.read == ["p0", "p4", "p5"]
    rows = {row.proxy: row for row in report.proxies}
    assert rows["p3"].differences == rows["p0"].differences != ()
    assert rows["p6"].differences == ()
    assert "3 others" in rows["p6"].note


async def test_a_proxy_that_cannot_be_paged_is_told_by_its_hash(town: Town) -> None:
    async def refuse(_: Proxy) -> Configuration:
        raise Unavailable("broke off")

    town.post_by_hand("p1", document("/x"))
    report = await audit_fleet(
        town.kube, await town.fleet(), town.gateways, refuse, clock=lambda: LATER, second_look=0.0
    )
    assert report.drifted[0].note == "its entities cannot be read: broke off"


async def test_paging_that_takes_too_long_is_given_up(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drifting, "READ_SECONDS", 0.02)

    async def hang(_: Proxy) -> Configuration:
        await asyncio.Event().wait()
        raise AssertionError

    town.post_by_hand("p1", document("/x"))
    report = await audit_fleet(
        town.kube, await town.fleet(), town.gateways, hang, clock=lambda: LATER, second_look=0.0
    )
    assert "not read within" in report.drifted[0].note


async def test_the_same_configuration_in_other_bytes_is_said_to_be_so(town: Town) -> None:
    given = document("/a", "/b", key=KEY)
    town.post_by_hand("p1", {"consumers": given["consumers"], **given, "_format_version": "3.0"})
    row = (await audit(town)).drifted[0]
    assert (row.differences, row.note) == ((), "no entity differs: the same configuration in other bytes")


async def test_long_lists_are_cut_and_counted(town: Town) -> None:
    town.post_by_hand("p1", document("/a", "/b", *(f"/x{i}" for i in range(80)), key=KEY))
    row = (await audit(town)).drifted[0]
    assert (len(row.differences), row.uncounted) == (drifting.LISTED, 80 - drifting.LISTED)


async def test_a_fleet_that_was_never_synced_has_nothing_to_compare_with() -> None:
    town = Town()
    report = await audit(town)
    assert (report.revision, report.proxies) == (0, ())


async def heal(town: Town, report: DriftReport, **options: Any) -> DriftReport:
    return await heal_drift(town.kube, await town.fleet(), town.gateways, report, **options)


async def test_drifted_proxies_are_brought_back_and_the_others_left_alone(town: Town) -> None:
    town.post_by_hand("p1", document("/x"))
    report = await heal(town, await audit(town))
    assert [row.healed for row in report.proxies] == [None, True, None]
    assert report.unhealed == ()
    assert [town.gateways.proxies[p.name].pushes for p in town.proxies] == [0, 1, 0]
    assert kinds(await audit(town)) == [K.IN_SYNC] * 3
    assert "brought back" in describe_drift(report.drifted[0])


async def test_with_the_policy_report_nothing_is_pushed_unless_asked_for() -> None:
    town = await settle(Town(drift="report"))
    town.post_by_hand("p1", document("/x"))
    report = await audit(town)
    assert (await heal(town, report)).drifted[0].healed is None
    assert town.gateways.proxies["p1"].pushes == 0
    assert (await heal(town, report, everything=True)).drifted[0].healed is True


async def test_what_cannot_be_brought_back_says_why(town: Town) -> None:
    town.post_by_hand("p1", document("/x"))
    report = await audit(town)
    town.gateways.proxies["p1"].refuses = True
    healed = await heal(town, report)
    assert [row.proxy for row in healed.unhealed] == ["p1"]
    assert "not brought back: " in describe_drift(healed.drifted[0])


async def test_a_paused_fleet_is_left_alone(town: Town) -> None:
    town.post_by_hand("p1", document("/x"))
    report = await audit(town)
    town.kube.one(PROXY_FLEETS, "shop")["spec"]["paused"] = True
    with pytest.raises(CheckRefused, match="paused"):
        await heal(town, report)
    assert town.gateways.proxies["p1"].pushes == 0


async def write(town: Town, report: DriftReport) -> None:
    await record_drift(town.kube, await town.fleet(), report, clock=lambda: LATER)


async def test_drift_shows_in_the_proxy_the_fleet_and_an_event(town: Town) -> None:
    await heal(town, await everything_pushed(town))
    town.post_by_hand("p1", document("/x"))
    report = await audit(town)
    await write(town, report)
    status = town.kube.one(PROXY_INSTANCES, "p1")["status"]
    assert (status["reason"], status["synced"]) == ("ForeignConfiguration", False)
    assert status["loadedHash"] == report.drifted[0].loaded_hash
    found = find_condition((await town.fleet()).status.conditions, "Drift")
    assert found is not None
    assert (found.status, "p1" in found.message) == ("True", True)
    events = [event for event in town.kube.all(EVENTS) if event["reason"] == "Drifted"]
    assert [event["involvedObject"]["name"] for event in events] == ["p1"]


async def everything_pushed(town: Town) -> DriftReport:
    """Make every proxy known by a push."""
    for fake in town.gateways.proxies.values():
        fake.loaded = ZERO_HASH
    return await audit(town)


async def test_drift_that_is_over_is_taken_back_and_rest_writes_nothing(town: Town) -> None:
    await heal(town, await everything_pushed(town))
    town.post_by_hand("p1", document("/x"))
    await write(town, await audit(town))
    load(town.gateways.proxies["p1"], await drifting.load_revision(town.kube, await town.fleet(), 2))
    await write(town, await audit(town))
    status = town.kube.one(PROXY_INSTANCES, "p1")["status"]
    assert (status["reason"], status["synced"]) == ("Configured", True)
    found = find_condition((await town.fleet()).status.conditions, "Drift")
    assert found is not None
    assert found.status == "False"
    town.kube.calls.clear()
    await write(town, await audit(town))
    assert town.kube.writes == []
