"""Reconciling: compile once per change, push once, onboard newcomers, heal drift, take a harmful revision back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from konverge.controller.delegating import SYNC, Run
from konverge.errors import Forbidden, Unavailable
from konverge.kube.resources import CONFIG_REVISIONS, EVENTS, PROXY_FLEETS
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import ZERO_HASH
from konverge.model.revision import Revision
from konverge.operate.falling_back import sync_sources
from konverge.operate.fleets import apply_fleet, list_instances, load_fleet
from konverge.operate.syncing import sync_fleet
from tests.unit.controller.world import World


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    opened = await World(monkeypatch).open()
    await opened.controller.reconcile()
    return opened


async def test_newcomers_are_onboarded_and_counted(world: World) -> None:
    assert world.ready() == {"p0", "p1", "p2"}
    status = await world.status()
    assert (status.current_revision, status.last_good_revision, status.counts.ready) == (1, 1, 3)
    assert world.controller.counters.onboarded == 3


async def test_without_a_change_nothing_is_pushed_or_written(world: World) -> None:
    writes, pushes = list(world.kube.writes), world.pushes()
    for _ in range(3):
        await world.controller.reconcile()
    assert world.kube.writes == writes
    assert world.pushes() == pushes


async def test_a_change_is_stored_once_and_pushed_once(world: World) -> None:
    await world.change("two")
    await world.controller.reconcile()
    assert world.pushes() == [2, 2, 2]
    assert world.routed() == {"two"}
    assert len(world.kube.all(CONFIG_REVISIONS)) == 2


async def test_writes_do_not_grow_with_the_number_of_reconciliations_but_with_changes(world: World) -> None:
    for content in ("two", "three"):
        await world.change(content)
    revisions = [
        str(call) for call in world.kube.calls if call.method == "POST" and call.resource == CONFIG_REVISIONS
    ]
    assert len(revisions) == 3


async def test_a_proxy_that_lost_its_configuration_gets_it_again(world: World) -> None:
    fake = world.gateways.proxies["p1"]
    fake.loaded, fake.routes = ZERO_HASH, ""
    await world.controller.reconcile()
    assert world.pushes() == [1, 2, 1]
    assert world.routed() == {"one"}
    assert world.controller.counters.drifted == 1


async def test_a_replaced_pod_is_a_newcomer(world: World) -> None:
    world.stop("p1")
    world.start("p9")
    await world.controller.reconcile()
    assert world.ready() == {"p0", "p2", "p9"}
    assert world.pushes() == [1, 1, 1]


async def test_a_proxy_that_is_out_of_reach_has_not_drifted_and_holds_nobody_back(world: World) -> None:
    world.gateways.proxies["p1"].sick = Unavailable("down", reason="ProxyUnreachable")
    await world.controller.reconcile()
    assert world.controller.counters.drifted == 0
    await world.change("two")
    assert {world.gateways.proxies[name].routes for name in ("p0", "p2")} == {"two"}
    assert world.ready() == {"p0", "p1", "p2"}, "it may serve well"
    world.gateways.proxies["p1"].sick = None
    world.be_patient()
    await world.controller.reconcile()
    assert world.routed() == {"two"}


async def test_a_controller_that_reaches_nobody_takes_nobody_out_of_traffic(world: World) -> None:
    for fake in world.gateways.proxies.values():
        fake.sick = Forbidden("our certificate expired", reason="IdentityRefused")
    await world.change("two")
    assert world.ready() == {"p0", "p1", "p2"}


async def test_a_proxy_that_holds_no_configuration_and_takes_none_leaves_the_traffic(world: World) -> None:
    fake = world.gateways.proxies["p2"]
    fake.loaded, fake.refuses = ZERO_HASH, True
    await world.change("two")
    assert world.ready() == {"p0", "p1"}


async def test_a_proxy_that_restarts_with_an_old_configuration_leaves_the_traffic_until_it_is_right(
    world: World,
) -> None:
    old = world.gateways.proxies["p1"].loaded
    await world.change("two")
    fake = world.gateways.proxies["p1"]
    fake.loaded, fake.routes, fake.sick = old, "one", None
    fleet = world.controller.read_fleet()
    assert fleet is not None
    members = [member for member in world.controller.site.roster if member.proxy.name == "p1"]
    assert await world.controller.look(fleet, members)
    assert world.ready() == {"p0", "p1", "p2"}, "the only one that is looked at may not leave: nobody else is known"
    members = list(world.controller.site.roster)
    for member in members:
        member.verified = world.gateways.proxies["p0"].loaded
    assert await world.controller.look(fleet, members)
    assert world.ready() == {"p0", "p2"}
    await world.controller.reconcile()
    assert world.ready() == {"p0", "p1", "p2"}
    assert world.routed() == {"two"}


async def test_drift_everywhere_at_once_takes_half_of_them_out_of_traffic_at_most(world: World) -> None:
    for fake in world.gateways.proxies.values():
        fake.loaded = "f" * 32
    fleet = world.controller.read_fleet()
    assert fleet is not None
    await world.controller.look(fleet, list(world.controller.site.roster))
    assert len(world.ready()) == 2
    await world.controller.reconcile()
    assert world.ready() == {"p0", "p1", "p2"}


async def test_a_fleet_that_only_reports_drift_leaves_a_serving_proxy_alone(world: World) -> None:
    await apply_fleet(world.kube, "shop", "default", FleetSpec(proxy_service="s", drift="report"))
    fake = world.gateways.proxies["p1"]
    fake.loaded = "f" * 32
    for _ in range(2):
        await world.controller.reconcile()
    assert world.pushes() == [1, 1, 1]
    assert world.controller.counters.drifted == 1
    assert world.ready() == {"p0", "p1", "p2"}
    fleet = await load_fleet(world.kube, "shop", "default")
    seen = (await list_instances(world.kube, fleet))["p1"]
    assert (seen.synced, seen.reason, seen.loaded_hash) == (False, "ForeignConfiguration", "f" * 32)
    events = [event for event in world.kube.all(EVENTS) if event["reason"] == "Drifted"]
    assert [event["involvedObject"]["name"] for event in events] == ["p1"]
    await world.change("two")
    assert world.routed() == {"two"}, "a new revision is no healing"


async def test_a_report_fleet_brings_back_what_was_lost(world: World) -> None:
    await apply_fleet(world.kube, "shop", "default", FleetSpec(proxy_service="s", drift="report"))
    fake = world.gateways.proxies["p1"]
    fake.loaded, fake.routes = ZERO_HASH, ""
    await world.controller.reconcile()
    assert world.routed() == {"one"}


async def test_a_restart_is_no_reason_to_overwrite_what_is_only_to_be_reported(world: World) -> None:
    await apply_fleet(world.kube, "shop", "default", FleetSpec(proxy_service="s", drift="report"))
    fake = world.gateways.proxies["p1"]
    fake.loaded, fake.routes = "f" * 32, "by hand"
    world.restart()
    for _ in range(2):
        await world.controller.reconcile()
    assert world.pushes() == [1, 1, 1]
    assert world.ready() == {"p0", "p1", "p2"}
    fleet = await load_fleet(world.kube, "shop", "default")
    seen = (await list_instances(world.kube, fleet))["p1"]
    assert (seen.synced, seen.reason, seen.loaded_hash) == (False, "ForeignConfiguration", "f" * 32)
    assert {c.type: c.status for c in seen.conditions}["ConfigSynced"] == "False"
    assert world.controller.counters.drifted == 1
    fake.loaded, fake.routes = world.gateways.proxies["p0"].loaded, "one"
    await world.controller.reconcile()
    seen = (await list_instances(world.kube, fleet))["p1"]
    assert (seen.synced, seen.reason) == (True, "Configured"), "somebody set it right by hand"
    fake.loaded, fake.routes = "e" * 32, "by hand again"
    world.restart()
    await world.change("two")
    assert world.routed() == {"two"}, "a new revision is rolled out over everybody, also after a restart"


async def test_a_restart_with_nothing_but_foreign_configurations_reports_them_all(world: World) -> None:
    await apply_fleet(world.kube, "shop", "default", FleetSpec(proxy_service="s", drift="report"))
    for fake in world.gateways.proxies.values():
        fake.loaded = "f" * 32
    world.restart()
    for _ in range(2):
        await world.controller.reconcile()
    assert world.pushes() == [1, 1, 1]
    assert world.controller.counters.drifted == 3
    assert world.controller.revision is not None
    world.start("p9")
    await world.controller.reconcile()
    assert world.ready() == {"p0", "p1", "p2", "p9"}, "a newcomer has nothing to keep"


async def test_a_restart_goes_on_with_a_roll_out_that_ended_half_way(world: World) -> None:
    await apply_fleet(world.kube, "shop", "default", FleetSpec(proxy_service="s", drift="report"))
    old = world.gateways.proxies["p2"].loaded
    await world.change("two")
    fake = world.gateways.proxies["p2"]
    fake.loaded, fake.routes = old, "one"
    world.restart()
    await world.controller.reconcile()
    assert world.routed() == {"two"}, "an older revision of ours is not foreign"


async def test_one_sick_canary_after_a_restart_does_not_make_the_last_good_revision_harmful(world: World) -> None:
    fake = world.gateways.proxies["p0"]
    fake.loaded, fake.routes, fake.refuses = ZERO_HASH, "", True
    world.restart()
    for _ in range(2):
        await world.controller.reconcile()
    assert world.ready() == {"p1", "p2"}, "it has nothing to answer with"
    (record,) = world.kube.all(CONFIG_REVISIONS)
    assert record["status"]["outcome"] == "Good"
    status = await world.status()
    assert (status.current_revision, status.last_good_revision) == (1, 1)
    await world.change("two")
    assert {world.gateways.proxies[name].routes for name in ("p1", "p2")} == {"two"}


async def test_a_restarted_controller_finds_everything_in_place(world: World) -> None:
    world.restart()
    await world.controller.reconcile()
    assert world.pushes() == [1, 1, 1]
    assert len(world.kube.all(CONFIG_REVISIONS)) == 1


async def test_a_harmful_revision_stops_at_the_canary_and_is_taken_back(world: World) -> None:
    await world.change("bad", harmful=True)
    assert world.pushes() == [3, 1, 1]
    assert "stopped at canary: proxy p0" in world.controller.last_error
    status = await world.status()
    assert (status.last_good_revision, status.current_revision) == (1, 1)
    assert world.routed() == {"one"}
    for _ in range(3):
        await world.controller.reconcile()
    assert world.pushes() == [3, 1, 1], "it is not tried again and again"


async def test_a_restarted_controller_remembers_what_did_harm(world: World) -> None:
    await world.change("bad", harmful=True)
    world.restart()
    for _ in range(2):
        await world.controller.reconcile()
    assert world.pushes() == [3, 1, 1]
    assert world.routed() == {"one"}
    assert (await world.status()).current_revision == 1


async def test_newcomers_get_the_last_good_revision_while_the_newest_is_harmful(world: World) -> None:
    await world.change("bad", harmful=True)
    for name in sorted(world.pods):
        world.stop(name)
    for name in ("q0", "q1"):
        world.start(name)
    await world.controller.reconcile()
    assert world.ready() == {"q0", "q1"}
    assert world.routed() == {"one"}


async def test_a_harmful_revision_that_only_newcomers_meet_is_taken_back_as_well(world: World) -> None:
    for name in sorted(world.pods):
        world.stop(name)
    await world.change("bad", harmful=True)
    for name in ("q0", "q1"):
        world.start(name)
    await world.controller.reconcile()
    assert world.ready() == {"q0", "q1"}
    assert world.routed() == {"one"}


async def test_the_next_change_is_tried_at_once(world: World) -> None:
    await world.change("bad", harmful=True)
    await world.change("better")
    assert world.routed() == {"better"}
    assert (await world.status()).last_good_revision == 3


async def test_after_a_while_the_canary_gets_another_try(world: World) -> None:
    await world.change("bad", harmful=True)
    world.harmful.clear()
    aim = world.controller.site.aim
    assert aim.settled is not None
    assert aim.settled.until is not None
    aim.settled = replace(aim.settled, until=0.0)
    world.be_patient()
    await world.controller.reconcile()
    assert world.routed() == {"bad"}


async def test_who_lost_the_lease_pushes_and_writes_nothing(world: World) -> None:
    world.leads = False
    writes = list(world.kube.writes)
    world.gateways.proxies["p1"].loaded = ZERO_HASH
    await world.change("two")
    assert world.pushes() == [1, 1, 1]
    assert [write for write in world.kube.writes[len(writes) :] if "pods" in write or "configrev" in write] == []


async def test_a_pinned_revision_is_in_force_whatever_the_sources_say(world: World) -> None:
    await world.change("two")
    await apply_fleet(world.kube, "shop", "default", FleetSpec(proxy_service="s", pinned_revision=1))
    await world.change("three")
    assert world.routed() == {"one"}
    assert (await world.status()).current_revision == 1
    world.restart()
    await world.controller.reconcile()
    assert world.routed() == {"one"}
    await world.kube.patch(PROXY_FLEETS, "shop", {"spec": {"pinnedRevision": 0}}, "default")
    await world.controller.reconcile()
    assert world.routed() == {"three"}


async def test_a_fallback_never_takes_the_place_of_a_pinned_revision(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.change("two")
    asked: list[int] = []

    async def fall_back(kube: Any, fleet: Any, gateways: Any, desired: Any, *rest: Any, **options: Any) -> Any:
        # It does what it would, so that the controller comes to rest and the test to its end.
        asked.append(desired.draft.number)
        options.pop("memory")
        return await sync_fleet(kube, fleet, gateways, desired.draft, *rest, **options)

    monkeypatch.setattr("konverge.controller.rolling.sync_sources", fall_back)
    await apply_fleet(world.kube, "shop", "default", FleetSpec(proxy_service="s", pinned_revision=1))
    await world.change("three")
    assert asked == [], "a fallback was let take the place of the pinned revision"
    assert world.routed() == {"one"}


async def test_a_revision_on_its_way_is_not_the_last_good_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody may have loaded it while the last wave is watched: who is killed then leaves it unjudged."""
    await world.change("two")
    told: list[int] = []

    async def sync(*given: Any, **options: Any) -> Any:
        report = await sync_sources(*given, **options)
        status = await world.controller.site.states.summarise()
        assert status is not None
        told.append(status.last_good_revision)
        return report

    monkeypatch.setattr("konverge.controller.rolling.sync_sources", sync)
    before = (await world.status()).last_good_revision
    await world.change("three")
    assert told == [before]
    assert (await world.status()).last_good_revision == before + 1


async def test_a_proxy_that_joins_while_a_revision_is_on_its_way_does_not_wait(world: World) -> None:
    controller = world.controller
    fleet = controller.read_fleet()
    assert fleet is not None
    world.content = "two"
    await controller.compile(fleet)
    assert await controller.act(fleet)
    world.start("p9")
    assert await controller.act(fleet), "the newcomer is taken on beside the roll-out"
    await controller.site.finish()
    await controller.reconcile()
    assert world.ready() == {"p0", "p1", "p2", "p9"}
    assert world.routed() == {"two"}


async def test_a_paused_fleet_is_left_alone(world: World) -> None:
    await apply_fleet(world.kube, "shop", "default", FleetSpec(proxy_service="s", paused=True))
    compiled = world.controller.counters.compiled
    await world.change("two")
    assert world.pushes() == [1, 1, 1]
    assert world.controller.counters.compiled == compiled


async def test_without_a_fleet_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    await world.controller.reconcile()
    assert world.kube.writes == []


async def test_no_proxies_are_no_reason_not_to_store_a_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World(monkeypatch).open(proxies=0)
    await world.controller.reconcile()
    status = await world.status()
    assert (status.current_revision, status.last_good_revision) == (1, 0)
    world.start("p0")
    await world.controller.reconcile()
    assert world.ready() == {"p0"}


async def test_a_killed_controller_leaves_nothing_half_done(world: World) -> None:
    world.kube.fail(1, lambda: Unavailable("api"), lambda call: call.resource == CONFIG_REVISIONS and call.writes)
    await world.change("two")
    assert world.controller.counters.failures == 1
    assert world.routed() == {"two"}
    assert (await world.status()).last_good_revision == 2


class Prefect:
    """Takes the runs that are asked for; a test says when and how they end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.asked: list[Run] = []
        self.state = "RUNNING"

    async def sync(self, _fleet: Fleet, revision: Revision, attempt: int = 0) -> Run:
        self.asked.append(Run(f"r{len(self.asked)}", SYNC, f"{revision.number}/{attempt}"))
        return self.asked[-1]

    async def onboard(self, _fleet: Fleet, revision: Revision, pods: list[str], attempt: int = 0) -> Run:
        self.asked.append(Run(f"r{len(self.asked)}", "proxy-onboarding", ",".join(pods)))
        return self.asked[-1]

    async def look(self, run: Run) -> Run:
        return replace(run, state=self.state)


async def test_a_fleet_whose_runner_is_prefect_gets_runs_and_no_pushes_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await World(monkeypatch).open(runner="prefect")
    prefect = Prefect(world)
    world.controller.commissioner._delegate = prefect  # type: ignore[assignment]
    for _ in range(3):
        await world.controller.reconcile()
    assert [(run.flow, run.key) for run in prefect.asked] == [(SYNC, "1/0")], "one run at a time"
    assert world.pushes() == [0, 0, 0]
    prefect.state = "COMPLETED"
    fleet = world.controller.read_fleet()
    assert fleet is not None
    await world.controller.act(fleet)
    assert world.controller.revision is not None
    assert [run.flow for run in prefect.asked] == [SYNC, "proxy-onboarding"]
    assert prefect.asked[-1].key == "p0,p1,p2", "one batch"


async def test_a_run_that_fails_is_told_and_not_repeated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World(monkeypatch).open(runner="prefect")
    prefect = Prefect(world)
    world.controller.commissioner._delegate = prefect  # type: ignore[assignment]
    await world.controller.reconcile()
    prefect.state = "FAILED"
    fleet = world.controller.read_fleet()
    assert fleet is not None
    await world.controller.act(fleet)
    assert "ended FAILED" in world.controller.last_error
    await world.controller.compile(fleet)
    assert world.controller.site.aim.is_settled
    assert sum(run.flow == SYNC for run in prefect.asked) == 1
