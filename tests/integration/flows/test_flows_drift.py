"""drift-audit as a flow: found, told, healed as the policy says, and nothing secret in what it leaves behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prefect.client.orchestration import get_client

import tasks.drifting
from flows.drift_audit import drift_audit
from konverge.errors import CheckRefused
from konverge.kong.declarative import serialise
from konverge.kube.resources import EVENTS, PROXY_FLEETS
from konverge.model.target import Target
from konverge.operate import drifting
from tests.unit.operate.drifting_town import KEY, Town, document
from tests.unit.operate.test_operate_drifting_databases import THEIRS, DatabaseTown, change_by_hand

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.usefixtures("harness"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
TARGET = Target(fleet="shop")
Open = Callable[..., Any]


@pytest.fixture
def work_on(monkeypatch: pytest.MonkeyPatch) -> Callable[[Town, Any], None]:
    """Let the tasks work on a town through these gateways."""

    def work_on(town: Town, gateways: Any) -> None:
        @asynccontextmanager
        async def connect(_: Target) -> AsyncIterator[Any]:
            yield town.kube

        @asynccontextmanager
        async def open_gateways(*_: Any) -> AsyncIterator[Any]:
            yield gateways

        @asynccontextmanager
        async def open_reader(*_: Any) -> AsyncIterator[Any]:
            yield town.read_entities

        monkeypatch.setattr(tasks.drifting, "connect", connect)
        monkeypatch.setattr(tasks.drifting, "open_gateways", open_gateways)
        monkeypatch.setattr(tasks.drifting, "open_reader", open_reader)
        monkeypatch.setattr(drifting, "SECOND_LOOK", 0.0)

    return work_on


@pytest.fixture
def build(work_on: Callable[[Town, Any], None]) -> Open:
    """Open a town whose proxies run its second revision."""

    async def build(**spec: Any) -> Town:
        town = Town(**spec)
        work_on(town, town.gateways)
        await town.store(serialise(document("/a", key=KEY)))
        town.enforce(await town.store(serialise(document("/a", "/b", key=KEY))))
        return town

    return build


def pushes(town: Town) -> list[int]:
    return [town.gateways.proxies[proxy.name].pushes for proxy in town.proxies]


async def read_table() -> str:
    """The newest table of the audit, as text."""
    async with get_client() as client:
        answer = await client._client.post("/artifacts/latest/filter", json={})
    rows = [row["data"] for row in answer.json() if row["key"] == "shop-drift"]
    assert len(rows) == 1
    return str(rows[0])


async def test_drift_is_found_told_and_healed(build: Open) -> None:
    town = await build()
    town.post_by_hand("p1", document("/a", "/evil", key="another-secret"))
    report = await drift_audit(target=TARGET)
    assert [row.get("healed") for row in report["proxies"]] == [None, True, None]
    assert pushes(town) == [0, 1, 0]
    table = await read_table()
    assert "route revil" in table
    assert "another-secret" not in table
    assert KEY not in table
    assert [event["involvedObject"]["name"] for event in town.kube.all(EVENTS)] == ["p1"]


async def test_with_the_policy_report_nothing_is_pushed_but_on_demand(build: Open) -> None:
    town = await build(drift="report")
    town.post_by_hand("p1", document("/a"))
    await drift_audit(target=TARGET)
    assert pushes(town) == [0, 0, 0]
    await drift_audit(target=TARGET, healing=True)
    assert pushes(town) == [0, 1, 0]


async def test_a_report_on_demand_heals_nothing_whatever_the_policy(build: Open) -> None:
    town = await build()
    town.post_by_hand("p1", document("/a"))
    report = await drift_audit(target=TARGET, healing=False)
    assert "healed" not in report["proxies"][1]
    assert pushes(town) == [0, 0, 0]


async def test_a_paused_fleet_is_audited_and_not_healed(build: Open) -> None:
    town = await build()
    town.kube.one(PROXY_FLEETS, "shop")["spec"]["paused"] = True
    town.post_by_hand("p1", document("/a"))
    report = await drift_audit(target=TARGET)
    assert report["proxies"][1]["drift"]["kind"] == "ForeignConfiguration"
    with pytest.raises(CheckRefused, match="paused"):
        await drift_audit(target=TARGET, healing=True)
    assert pushes(town) == [0, 0, 0]


async def test_a_fleet_in_sync_leaves_a_table_and_no_event(build: Open) -> None:
    town = await build()
    report = await drift_audit(target=TARGET, jitter_seconds=0.01)
    assert {row["drift"]["kind"] for row in report["proxies"]} == {"InSync"}
    assert "the desired configuration is loaded" in await read_table()
    assert town.kube.all(EVENTS) == []


async def test_a_database_is_audited_and_healed_as_a_whole(work_on: Callable[[Town, Any], None]) -> None:
    town = await DatabaseTown().open()
    work_on(town, town.nodes)
    await change_by_hand(town)
    writes = len(town.kong.writes)
    report = await drift_audit(target=TARGET, healing=False)
    assert {row["drift"]["kind"] for row in report["proxies"]} == {"ForeignConfiguration"}
    assert len(town.kong.writes) == writes
    report = await drift_audit(target=TARGET)
    assert [row["healed"] for row in report["proxies"]] == [True] * 3
    table = await read_table()
    assert "route by-hand" in table
    assert THEIRS not in table
    assert KEY not in table
    assert {row["drift"]["kind"] for row in (await drift_audit(target=TARGET))["proxies"]} == {"InSync"}
    town.kong.close()
