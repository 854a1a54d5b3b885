"""A dry run says what changes, for whom, in which waves; it writes and pushes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fake_gateways import FakeGateways
from fake_kube import FakeKube
from test_operate_falling_back import CLASS, SERVICE, ingress, plugin

from konverge.cli.syncing import describe_plan, name_author
from konverge.errors import NotFound, Unavailable
from konverge.kube.resources import SOURCES, Object
from konverge.model.fleet import Fleet, FleetSpec, FleetStatus
from konverge.model.proxy import Proxy
from konverge.operate import planning
from konverge.operate.planning import SyncPlan, plan_sync
from konverge.operate.rendering import compile_revision
from konverge.operate.revisions import store_revision


class Shop:
    """Three proxies and their sources."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kube, self.gateways = FakeKube(), FakeGateways()
        self.fleet = Fleet(name="shop", namespace="default", spec=FleetSpec(proxy_service="s"))
        self.proxies = [self.gateways.add(f"p{n}") for n in range(3)]

        @asynccontextmanager
        async def open_gateways(*_: Any) -> AsyncIterator[FakeGateways]:
            yield self.gateways

        async def discover(*_: Any) -> list[Proxy]:
            return self.proxies

        monkeypatch.setattr(planning, "open_gateways", open_gateways)
        monkeypatch.setattr(planning, "discover_proxies", discover)
        for body in (CLASS, SERVICE, ingress("a", "/a")):
            self.add(body)

    def add(self, body: Object) -> None:
        resource = next(r for r in SOURCES if r.kind == body["kind"])
        self.kube.put(resource, body)

    async def settle(self) -> None:
        """Everybody runs what the sources come to now."""
        draft, _ = compile_revision(self.fleet, await planning.gather_sources(self.kube))
        stored = await store_revision(self.kube, self.fleet, draft)
        status = FleetStatus(current_revision=stored.number, current_hash=stored.hash)
        self.fleet = self.fleet.model_copy(update={"status": status})
        for fake in self.gateways.proxies.values():
            fake.loaded = stored.hash

    async def plan(self, number: int | None = None) -> SyncPlan:
        before = list(self.kube.writes)
        found = await plan_sync(self.kube, self.fleet, number)
        assert self.kube.writes == before
        assert not any("push" in fake.log for fake in self.gateways.proxies.values())
        return found


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(monkeypatch)


async def test_before_the_first_sync_everything_is_new(shop: Shop) -> None:
    plan = await shop.plan()
    assert plan.changes
    assert plan.note == "nothing was synced before"
    assert [[p.name for p in w.proxies] for w in plan.waves] == [["p0"], ["p1", "p2"]]
    assert any("exists there only" in str(d) for d in plan.differences)


async def test_nothing_to_do_is_no_change(shop: Shop) -> None:
    await shop.settle()
    plan = await shop.plan()
    assert not plan.changes
    assert plan.differences == ()
    assert [p.pushed for p in plan.proxies] == [False] * 3


async def test_a_change_is_shown_without_its_secret(shop: Shop) -> None:
    await shop.settle()
    shop.add(ingress("b", "/b", "secret"))
    body = plugin("secret", "x")
    body |= {"plugin": "request-transformer", "config": {"add": {"headers": ["Authorization: Bearer do-not-tell"]}}}
    shop.add(body)
    plan = await shop.plan()
    assert plan.changes
    assert [p.pushed for p in plan.proxies] == [True] * 3
    assert len(plan.differences) >= 2
    shown = str(describe_plan(plan))
    assert "do-not-tell" not in shown
    assert describe_plan(plan)["revision"] == 0


async def test_a_proxy_that_drifted_is_a_change_and_one_that_is_down_is_shown(shop: Shop) -> None:
    await shop.settle()
    shop.gateways.proxies["p1"].loaded = "f" * 32
    shop.gateways.proxies["p2"].sick = Unavailable("down")
    plan = await shop.plan()
    assert plan.changes
    assert {p.proxy.name: (p.loaded[:1], p.pushed) for p in plan.proxies}["p1"] == ("f", True)
    assert {p.proxy.name: p.loaded for p in plan.proxies}["p2"] == ""


async def test_a_stored_revision_and_a_pinned_one_are_planned(shop: Shop) -> None:
    await shop.settle()
    shop.add(ingress("b", "/b"))
    plan = await shop.plan(1)
    assert (plan.revision.number, plan.changes) == (1, False)
    pinned = shop.fleet.spec.model_copy(update={"pinned_revision": 1})
    shop.fleet = shop.fleet.model_copy(update={"spec": pinned})
    assert (await shop.plan()).revision.number == 1
    with pytest.raises(NotFound, match="has no revision 9"):
        await shop.plan(9)


def test_the_author_is_who_runs_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    assert name_author() == "ann@here"

    def nobody() -> str:
        raise KeyError("uid 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert name_author() == "unknown@here"
