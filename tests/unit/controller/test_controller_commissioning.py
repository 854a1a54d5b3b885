"""Runs that do not start, that die, that others asked for: what the controller does, and what the fleet says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from konverge.controller import commissioning
from konverge.controller.attending import Patience
from konverge.controller.commissioning import BLOCKED
from konverge.controller.delegating import ONBOARDING, SYNC, Run
from konverge.errors import Invalid, Unavailable
from konverge.kube.resources import LEASES
from konverge.model.condition import Condition, find_condition
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.revision import Revision, RevisionOutcome
from konverge.operate.fleets import apply_fleet
from konverge.operate.onboarding import onboard_proxies
from konverge.operate.recording import summarise_fleet
from konverge.operate.revisions import record_verdict
from konverge.operate.syncing import sync_fleet
from tests.unit.controller.world import World

SOON = 1e-9
"""Seconds that have passed with the next statement."""


class Prefect:
    """A server and its worker: runs are found by their key, and do what flows do when a test says so."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.runs: dict[str, Run] = {}
        self.revisions: dict[str, Revision] = {}
        self.events = 0
        self.away = False
        self.ended: list[str] = []

    async def sync(self, _fleet: Fleet, revision: Revision, attempt: int = 0) -> Run:
        self.revisions[f"{SYNC}/{revision.number}/{attempt}"] = revision
        return self._create(SYNC, f"{SYNC}/{revision.number}/{attempt}")

    async def onboard(self, _fleet: Fleet, revision: Revision, pods: list[str], attempt: int = 0) -> Run:
        key = f"{ONBOARDING}/{','.join(pods)}/{attempt}"
        self.revisions[key] = revision
        return self._create(ONBOARDING, key)

    def _create(self, flow: str, key: str) -> Run:
        self._answer()
        return self.runs.setdefault(key, Run(key, flow, key, "SCHEDULED", "Scheduled"))

    async def look(self, run: Run) -> Run:
        self._answer()
        return self.runs[run.key]

    async def find_event(self, run: Run) -> str:
        self._answer()
        return str(self.events)

    async def end(self, run: Run, message: str) -> None:
        self.ended.append(message)
        self.become(run, "CRASHED")

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("Prefect at http://p/api does not answer", reason="PrefectUnreachable", hint="a#b")

    @property
    def last(self) -> Run:
        return list(self.runs.values())[-1]

    def become(self, run: Run, state: str) -> None:
        self.runs[run.key] = replace(run, state=state, name=state.title())

    async def work(self) -> None:
        """A worker does the last run as the flows do."""
        run, world = self.last, self.world
        fleet, revision = world.controller.read_fleet(), self.revisions[run.key]
        assert fleet is not None
        if run.flow == SYNC:
            proxies = [member.proxy for member in world.controller.site.roster]
            report = await sync_fleet(world.kube, fleet, world.gateways, revision, proxies)
            await summarise_fleet(world.kube, fleet, report.revision)
        else:
            names = run.key.split("/")[1].split(",")
            proxies = [m.proxy for m in world.controller.site.roster if m.proxy.name in names]
            await onboard_proxies(world.kube, fleet, world.gateways, revision, proxies)
        self.become(run, "COMPLETED")


class Town(World):
    """A world whose fleet is run by Prefect."""

    def begin(self) -> None:
        self.prefect = Prefect(self)
        self.join()

    def join(self) -> None:
        """The controller of this process talks to that Prefect."""
        self.controller.commissioner._delegate = self.prefect  # type: ignore[assignment]

    async def act(self) -> None:
        fleet = self.controller.read_fleet()
        assert fleet is not None
        await self.controller.compile(fleet)
        self.controller.meet(fleet)
        await self.controller.act(fleet)
        await self.controller.site.states.flush()

    async def settle(self) -> None:
        """Everybody is brought into traffic."""
        for _ in range(2):
            await self.act()
            await self.prefect.work()
        await self.act()
        assert self.routed() == {self.content}
        assert self.ready() == self.pods

    async def blocked(self) -> Condition | None:
        return find_condition((await self.status()).conditions, BLOCKED)


@pytest.fixture
async def town(monkeypatch: pytest.MonkeyPatch) -> Town:
    town = Town(monkeypatch)
    town.begin()
    monkeypatch.setattr(commissioning, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(commissioning, "GATHER_SECONDS", 0.0)
    await town.open(runner="prefect")
    return town


@pytest.fixture
def hasten(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set how long a run may take to start, and how long it may be silent."""

    def set_patience(start: float = 1e6, silent: float = 1e6) -> None:
        monkeypatch.setenv("KONVERGE_RUN_START_SECONDS", str(start))
        monkeypatch.setenv("KONVERGE_RUN_SILENT_SECONDS", str(silent))

    return set_patience


async def test_a_fleet_is_brought_up_by_a_sync_and_one_batch(town: Town) -> None:
    await town.settle()
    assert [run.flow for run in town.prefect.runs.values()] == [SYNC, ONBOARDING]
    status = await town.status()
    assert (status.counts.synced, status.counts.ready) == (3, 3), "what a run came to is counted"
    ready = find_condition(status.conditions, "Ready")
    assert ready is not None
    assert ready.status == "True"
    assert await town.blocked() is None
    town.start("p9")
    await town.act()
    await town.prefect.work()
    await town.act()
    counts = (await town.status()).counts
    assert (counts.total, counts.ready) == (4, 4)


async def test_who_was_brought_up_but_is_not_seen_in_traffic_yet_is_not_named_again(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(town, "ready", set)
    await town.act()
    await town.prefect.work()
    await town.act()
    await town.prefect.work()
    for _ in range(3):
        await town.act()
    assert [run.flow for run in town.prefect.runs.values()] == [SYNC, ONBOARDING]
    monkeypatch.setattr(commissioning, "OPENING_SECONDS", 0.0)
    for member in town.controller.site.roster:
        member.knock_at = 0.0
    await town.act()
    assert [run.flow for run in town.prefect.runs.values()] == [SYNC, ONBOARDING, ONBOARDING], "but later it is"


async def test_what_a_run_under_way_has_pushed_is_no_drift(town: Town) -> None:
    await town.settle()
    town.content = "two"
    await town.act()
    town.prefect.become(town.prefect.last, "RUNNING")
    await town.act()
    revision = town.prefect.revisions[town.prefect.last.key]
    fleet = town.controller.read_fleet()
    assert fleet is not None
    first = next(iter(town.controller.site.roster))
    await onboard_proxies(town.kube, fleet, town.gateways, revision, [first.proxy])
    await town.controller.look(fleet, list(town.controller.site.roster))
    assert (town.controller.counters.drifted, town.ready()) == (0, town.pods)
    await town.prefect.work()
    await town.act()
    assert town.routed() == {"two"}
    assert not any(member.busy for member in town.controller.site.roster), "everybody is let go of"


async def test_a_sync_that_crashed_is_asked_for_again_at_once_and_nobody_goes_back(town: Town) -> None:
    await town.settle()
    town.content = "two"
    await town.act()
    crashed = town.prefect.last
    town.prefect.become(crashed, "RUNNING")
    await town.act()
    town.prefect.become(crashed, "CRASHED")
    await town.act()
    assert town.prefect.last.key != crashed.key
    assert town.prefect.last.flow == SYNC
    assert town.prefect.revisions[town.prefect.last.key].number == town.prefect.revisions[crashed.key].number
    await town.prefect.work()
    await town.act()
    assert town.routed() == {"two"}
    assert town.controller.site.aim.is_settled


async def test_between_two_attempts_newcomers_are_brought_up_and_nobody_else_is_touched(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    await town.settle()
    town.content = "two"
    await town.act()
    town.prefect.become(town.prefect.last, "RUNNING")
    await town.act()
    monkeypatch.setattr(commissioning, "FIRST_PAUSE", 1000.0)
    town.prefect.become(town.prefect.last, "CRASHED")
    await town.act()
    assert town.controller.commissioner.busy, "it does not wait for a change to go on"
    town.start("p9")
    await town.act()
    await town.act()
    assert town.prefect.last.key.startswith(f"{ONBOARDING}/p9/")


async def test_a_run_that_no_worker_takes_is_told_and_untold(town: Town, hasten: Callable[..., None]) -> None:
    hasten(start=SOON)
    await town.act()
    run = town.prefect.last
    await town.act()
    condition = await town.blocked()
    assert condition is not None
    assert (condition.status, condition.reason) == ("True", "RunNotStarted")
    assert run.id in condition.message
    assert condition.hint.endswith("#run-not-started")
    requests = town.kube.requests
    await town.act()
    assert town.kube.requests == requests, "it is told once"
    await town.prefect.work()
    await town.act()
    condition = await town.blocked()
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "RunnerWorks")
    assert [run.flow for run in town.prefect.runs.values()] == [SYNC, ONBOARDING], "the run was not given up"


async def test_a_run_that_a_dead_worker_had_taken_is_ended(town: Town, hasten: Callable[..., None]) -> None:
    hasten(start=SOON, silent=SOON)
    await town.act()
    taken = town.prefect.last
    town.prefect.become(taken, "PENDING")
    await town.act()
    await town.act()
    assert len(town.prefect.ended) == 1
    await town.act()
    assert town.prefect.last.key != taken.key


async def test_a_running_run_is_ended_when_nothing_is_heard_of_it(town: Town, hasten: Callable[..., None]) -> None:
    hasten(silent=SOON)
    await town.act()
    town.prefect.become(town.prefect.last, "RUNNING")
    await town.act()
    for _ in range(3):
        town.prefect.events += 1
        await town.act()
        assert town.prefect.ended == [], "an event is a sign of life"
    for number in range(3):
        town.kube.put(
            LEASES, {"metadata": {"name": "shop-sync", "namespace": "default", "resourceVersion": f"{number}"}}
        )
        await town.act()
        assert town.prefect.ended == [], "and so is a Lease that is renewed"
    await town.act()
    assert len(town.prefect.ended) == 1
    condition = await town.blocked()
    assert condition is not None
    assert (condition.status, condition.reason) == ("True", "RunLost")


async def test_while_prefect_is_away_it_is_told_once_and_asked_again(town: Town) -> None:
    town.prefect.away = True
    await town.act()
    condition = await town.blocked()
    assert condition is not None
    assert (condition.status, condition.reason, condition.hint) == ("True", "PrefectUnreachable", "a#b")
    failures = town.controller.counters.failures
    await town.act()
    assert town.controller.counters.failures == failures
    assert town.controller.commissioner.busy, "or it would be asked again with the next change only"
    town.prefect.away = False
    await town.settle()
    condition = await town.blocked()
    assert condition is not None
    assert condition.status == "False"


async def test_a_run_is_not_called_dead_because_prefect_was_away(town: Town, hasten: Callable[..., None]) -> None:
    hasten(silent=0.2)
    await town.act()
    run = town.prefect.last
    town.prefect.become(run, "RUNNING")
    attendant = town.controller.commissioner._attendant
    assert attendant is not None
    await attendant.look()
    attendant._heard -= 100.0
    town.prefect.away = True
    with pytest.raises(Unavailable):
        await attendant.look()
    town.prefect.away = False
    await attendant.look()
    assert town.prefect.ended == []


async def test_a_controller_that_starts_again_finds_its_run(town: Town) -> None:
    await town.act()
    town.restart()
    town.join()
    await town.act()
    assert len(town.prefect.runs) == 1
    await town.settle()
    town.restart()
    town.join()
    await town.act()
    await town.act()
    assert len([run for run in town.prefect.runs.values() if run.flow == SYNC]) == 1, "what is done is not done again"


async def test_after_a_restart_a_pin_is_not_mistaken_for_its_run_of_long_ago(town: Town) -> None:
    await town.settle()
    town.content = "two"
    await town.act()
    await town.prefect.work()
    await town.act()
    town.restart()
    town.join()
    await apply_fleet(town.kube, "shop", "default", FleetSpec(proxy_service="s", runner="prefect", pinned_revision=1))
    await town.act()
    assert town.prefect.last.state == "SCHEDULED", "a new run"
    await town.prefect.work()
    await town.act()
    assert town.routed() == {"one"}
    assert (await town.status()).current_revision == 1


@pytest.mark.parametrize("harmful", [True, False])
async def test_a_failed_revision_waits_and_one_that_did_harm_waits_longer(town: Town, harmful: bool) -> None:
    await town.settle()
    town.content = "two"
    await town.act()
    fleet = town.controller.read_fleet()
    assert fleet is not None
    if harmful:
        number = town.prefect.revisions[town.prefect.last.key].number
        await record_verdict(town.kube, fleet, number, RevisionOutcome.HARMFUL, "Refused", "no")
    town.prefect.become(town.prefect.last, "FAILED")
    await town.act()
    settled = town.controller.site.aim.settled
    assert settled is not None
    assert settled.until is not None
    assert settled.revision.number == 1, "the last good one is in force"
    left = settled.until - time.monotonic()
    assert left > 200.0 if harmful else left < 60.0
    assert "ended FAILED" in town.controller.last_error


async def test_another_runner_lets_everybody_go(town: Town) -> None:
    await town.act()
    town.prefect.become(town.prefect.last, "RUNNING")
    await town.act()
    assert all(member.busy for member in town.controller.site.roster)
    await apply_fleet(town.kube, "shop", "default", FleetSpec(proxy_service="s", runner="in-process"))
    await town.controller.reconcile()
    assert town.routed() == {"one"}
    assert town.ready() == town.pods


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_a_time_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(Invalid, match="KONVERGE_RUN_SILENT_SECONDS"):
        Patience.read({"KONVERGE_RUN_SILENT_SECONDS": text})
    assert Patience.read({}) == Patience()
