"""The engine: waves until harm, the way back, superseding, judging, and sick proxies that hold up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from fake_gateways import FakeGateways
from fake_kube import FakeKube

from konverge.decide.waving import Wave
from konverge.errors import Unavailable, VerificationFailed
from konverge.kong.outcomes import Refused
from konverge.model.counters import Counters
from konverge.model.fleet import Fleet, FleetSpec, Rollout
from konverge.model.revision import Revision, RevisionOutcome
from konverge.operate import configuring, judging, visiting
from konverge.operate.fleets import list_instances
from konverge.operate.quarantining import Quarantine
from konverge.operate.revisions import list_records, record_baseline, record_verdict, store_revision
from konverge.operate.syncing import Observer, SyncReport, Verdict, WaveReport, sync_fleet

OLD = Revision(number=0, content=b'{"old":1}', marker="old")
NEW = Revision(number=0, content=b'{"new":1}', marker="new")

NOTHING = Counters()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuring, "LONGEST_WAIT", 0.0)
    monkeypatch.setattr(configuring, "PROBE_PAUSE", 0.0)
    monkeypatch.setattr(configuring, "PROBE_SECONDS", 0.0)


class Town:
    """A fleet on a stored old revision, and a new one that is stored too."""

    def __init__(self, count: int, **rollout: Any) -> None:
        self.kube, self.gateways = FakeKube(), FakeGateways()
        self.gateways.markers = {r.hash: r.marker for r in (OLD, NEW)}
        spec = FleetSpec(proxy_service="s", rollout=Rollout(**{"wave_size": 2, **rollout}))
        self.fleet = Fleet(name="shop", namespace="default", spec=spec)
        self.proxies = [self.gateways.add(f"p{n}") for n in range(count)]
        for fake in self.gateways.proxies.values():
            fake.loaded, fake.routes = OLD.hash, OLD.marker
        self.old = self.new = OLD

    async def open(self) -> Town:
        self.old = await store_revision(self.kube, self.fleet, OLD)
        self.new = await store_revision(self.kube, self.fleet, NEW)
        return self

    async def sync(self, **options: Any) -> SyncReport:
        options = {"previous": self.old, **options}
        return await sync_fleet(self.kube, self.fleet, self.gateways, self.new, self.proxies, **options)

    def loaded(self) -> list[str]:
        names = {OLD.hash: "old", NEW.hash: "new"}
        return [names.get(self.gateways.proxies[p.name].loaded, "none") for p in self.proxies]

    async def verdicts(self) -> dict[int, str]:
        return {r.number: r.status.outcome.value for r in await list_records(self.kube, self.fleet)}


async def test_a_sync_goes_through_and_says_so() -> None:
    town = await Town(6).open()
    report = await town.sync()
    assert report.verdict is Verdict.COMPLETED
    assert [len(w.outcomes) for w in report.waves] == [1, 2, 2, 1]
    assert town.loaded() == ["new"] * 6
    assert report.revision == town.new
    assert (await town.verdicts())[2] == "Good"
    report.raise_for_harm()


def remember_as_good(town: Town) -> None:
    status = town.fleet.status.model_copy(update={"last_good_hash": NEW.hash, "last_good_revision": 2})
    town.fleet = town.fleet.replace(status=status)


async def test_one_sick_canary_says_nothing_against_the_last_good_revision() -> None:
    town = await Town(6).open()
    remember_as_good(town)
    town.gateways.proxies["p0"].refuses = True
    report = await town.sync(previous=None)
    assert report.verdict is Verdict.COMPLETED
    assert town.loaded() == ["old", "new", "new", "new", "new", "new"]
    assert (await town.verdicts())[2] == "Good"
    assert [wave.wave.name for wave in report.waves][:2] == ["canary", "canary-1"]


@pytest.mark.parametrize(("count", "verdict", "visited"), [(1, "Pending", 1), (6, "Harmful", 3)])
async def test_a_last_good_revision_that_nobody_takes_any_more_is_held(
    count: int, verdict: str, visited: int
) -> None:
    town = await Town(count).open()
    remember_as_good(town)
    for fake in town.gateways.proxies.values():
        fake.refuses = True
    report = await town.sync(previous=None)
    assert report.verdict is Verdict.HELD
    assert len(report.outcomes) == visited
    assert (await town.verdicts())[2] == verdict


async def test_harm_in_a_later_wave_takes_back_what_was_done() -> None:
    town = await Town(6).open()
    town.gateways.proxies["p2"].stuck = True
    report = await town.sync()
    assert report.verdict is Verdict.ROLLED_BACK
    assert report.revision == town.old
    assert town.loaded() == ["old"] * 6
    assert [o.proxy for o in report.went_back] == ["p0", "p1", "p2"]
    assert "stopped at wave-1: proxy p2" in report.outcome.message
    assert "3 of 3 proxies have revision 1 again" in report.outcome.message
    assert report.outcome.reason == "DataPathFailed"
    assert (await town.verdicts())[2] == "Harmful"
    instances = await list_instances(town.kube, town.fleet)
    assert {s.loaded_revision for s in instances.values()} == {1}
    with pytest.raises(VerificationFailed, match="again"):
        report.raise_for_harm()


@pytest.mark.parametrize("hold", ["on_harm", "no previous"])
async def test_where_it_should_hold_everybody_keeps_what_they_have(hold: str) -> None:
    town = await Town(4, **({"on_harm": "hold"} if hold == "on_harm" else {})).open()
    town.gateways.proxies["p1"].stuck = True
    report = await town.sync(**({} if hold == "on_harm" else {"previous": None}))
    assert report.verdict is Verdict.HELD
    assert town.loaded() == ["new", "new", "new", "old"]


async def test_a_refused_revision_reaches_nobody() -> None:
    town = await Town(5).open()
    for fake in town.gateways.proxies.values():
        fake.refusal = lambda content: Refused() if content == NEW.content else None
    report = await town.sync()
    assert report.verdict is Verdict.ROLLED_BACK
    assert town.loaded() == ["old"] * 5
    assert [town.gateways.proxies[p.name].pushes for p in town.proxies] == [1, 0, 0, 0, 0]


async def test_a_newer_revision_ends_it_at_the_boundary_of_a_wave() -> None:
    town = await Town(6).open()
    asked: list[int] = []

    def superseded() -> bool:
        asked.append(town.loaded().count("new"))
        return len(asked) > 2

    report = await town.sync(superseded=superseded)
    assert report.verdict is Verdict.SUPERSEDED
    assert asked == [0, 1, 3]
    assert town.loaded().count("new") == 3
    assert (await town.verdicts())[2] == "Superseded"
    report.raise_for_harm()


async def test_who_may_not_act_any_more_sends_nothing() -> None:
    town = await Town(3).open()
    report = await town.sync(may_act=lambda: False)
    assert report.verdict is Verdict.SUPERSEDED
    assert report.outcome.reason == "NotLeading"
    assert town.loaded() == ["old"] * 3
    allowed = iter([True, False, False])
    report = await town.sync(may_act=lambda: next(allowed))
    assert [o.outcome.reason for o in report.outcomes] == ["NotLeading"]
    assert town.loaded() == ["old"] * 3
    assert await list_instances(town.kube, town.fleet) == {}


async def test_a_dead_canary_is_replaced_before_the_rest_is_touched() -> None:
    town = await Town(8).open()
    town.gateways.proxies["p0"].sick = Unavailable("down", reason="ProxyUnreachable")
    town.gateways.proxies["p1"].stuck = True
    report = await town.sync()
    assert [(w.wave.name, len(w.outcomes)) for w in report.waves] == [("canary", 1), ("canary-1", 1)]
    assert report.verdict is Verdict.ROLLED_BACK
    assert town.loaded() == ["old"] * 8


async def test_a_fleet_that_is_down_is_not_visited_one_by_one_for_ever() -> None:
    town = await Town(12, wave_size=10).open()
    for fake in town.gateways.proxies.values():
        fake.sick = Unavailable("down", reason="ProxyUnreachable")
    report = await town.sync()
    assert [len(w.outcomes) for w in report.waves] == [1, 1, 1, 4, 5]
    assert report.verdict is Verdict.COMPLETED
    assert not any(outcome.ok for outcome in report.outcomes)
    assert (await town.verdicts())[2] == "Pending"


async def test_a_sick_proxy_is_left_out_until_it_is_due() -> None:
    town = await Town(4).open()
    quarantine = Quarantine()
    town.gateways.proxies["p3"].sick = Unavailable("down", reason="ProxyUnreachable")
    await town.sync(quarantine=quarantine)
    assert quarantine.find(town.proxies[3]) is not None
    town.gateways.proxies["p3"].log.clear()
    again = await town.sync(quarantine=quarantine)
    assert again.skipped == ("p3",)
    assert town.gateways.proxies["p3"].log == []
    assert len(again.outcomes) == 3


async def test_a_slow_proxy_lends_its_slot_and_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visiting, "SLOT_SECONDS", 0.05)
    monkeypatch.setattr(visiting, "STRAGGLER_SECONDS", 0.3)
    town = await Town(8, canary=0, wave_size=8, concurrency=1).open()
    hanging = asyncio.Event()
    town.gateways.proxies["p0"].hangs = hanging
    report = await asyncio.wait_for(town.sync(), 30)
    assert town.loaded() == ["old"] + ["new"] * 7
    slow = report.outcomes[0]
    assert slow.outcome.reason == "ProxySlow"
    assert slow.retryable
    assert "while it was pushed to" in slow.outcome.message
    assert report.verdict is Verdict.COMPLETED


async def test_more_than_twice_the_concurrency_is_never_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visiting, "SLOT_SECONDS", 0.02)
    monkeypatch.setattr(visiting, "VISIT_SECONDS", 0.2)
    town = await Town(12, canary=0, wave_size=12, concurrency=2).open()
    busy: set[str] = set()
    most = 0
    for fake in town.gateways.proxies.values():

        async def push(content: bytes, name: str = fake.proxy.name) -> Any:
            nonlocal most
            busy.add(name)
            most = max(most, len(busy))
            try:
                await asyncio.Event().wait()
            finally:
                busy.discard(name)

        fake.push = push  # type: ignore[method-assign]
    report = await asyncio.wait_for(town.sync(), 60)
    assert {o.outcome.reason for o in report.outcomes} == {"ProxySlow"}
    assert most == 4


async def test_what_a_slow_turn_cost_is_given_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visiting, "SLOT_SECONDS", 0.0)
    turns, taken, ends = visiting.Turns(2), [], [asyncio.Event() for _ in range(8)]

    async def work(number: int) -> None:
        async with turns.take():
            taken.append(number)
            await ends[number].wait()

    tasks = [asyncio.create_task(work(number)) for number in range(8)]
    async with asyncio.timeout(30):
        while len(taken) < 4:  # noqa: ASYNC110 - the first two lend their slots, or one lends and gets one more in
            await asyncio.sleep(0)
        for _ in range(50):
            await asyncio.sleep(0)
        assert sorted(taken) == [0, 1, 2, 3], "twice the concurrency is under way and no more"
        for event in ends:
            event.set()
        await asyncio.gather(*tasks)
    assert len(taken) == 8
    assert turns._slots._value == 2, "every slot came back"


async def test_a_cancelled_sync_leaves_nothing_running() -> None:
    town = await Town(4, canary=0, wave_size=4).open()
    for fake in town.gateways.proxies.values():
        fake.hangs = asyncio.Event()
    before = asyncio.all_tasks()
    sync = asyncio.create_task(town.sync())
    async with asyncio.timeout(30):
        while not all(fake.pushes for fake in town.gateways.proxies.values()):  # noqa: ASYNC110
            await asyncio.sleep(0)
    sync.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sync
    assert asyncio.all_tasks() == before


class Judged(Town):
    """A town whose proxies count their traffic."""

    def __init__(self, count: int, harm: Counters = NOTHING) -> None:
        super().__init__(count, soak_seconds=0.01)
        for fake in self.gateways.proxies.values():
            fake.traffic = Counters(1000, 0, 1000, 10_000)
            fake.per_read, fake.harm = Counters(100, 0, 100, 1000), harm


async def test_a_wave_with_more_errors_is_taken_back() -> None:
    town = await Judged(4, harm=Counters(100, 100, 100, 1000)).open()
    report = await town.sync()
    assert report.verdict is Verdict.ROLLED_BACK
    assert report.outcome.reason == "ErrorsIncreased"
    assert "stopped at canary: the wave: 100 of 200 answers are 5xx (50.0%), 0.0% of" in report.outcome.message
    assert town.loaded() == ["old"] * 4


async def test_a_wave_that_is_slower_is_taken_back() -> None:
    town = await Judged(4, harm=Counters(0, 0, 100, 100_000)).open()
    report = await town.sync()
    assert report.outcome.reason == "LatencyIncreased"
    assert town.loaded() == ["old"] * 4


class Killed(Exception):
    """Stands for kill -9 in the middle of a soak."""


class Harmed(Judged):
    """The old revision is good; the new one does harm on two proxies of the first wave."""

    async def open(self) -> Harmed:
        await super().open()
        await record_verdict(self.kube, self.fleet, 1, RevisionOutcome.GOOD)
        for proxy in self.proxies[1:3]:
            self.gateways.proxies[proxy.name].harm = Counters(100, 100, 100, 1000)
        return self

    async def sync_until_killed(self, monkeypatch: pytest.MonkeyPatch, soaks: int) -> None:
        """Sync until the soak of a wave, which is the last thing that this process does."""
        left = soaks

        async def soak(_: float) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(judging, "soak", soak)
            with pytest.raises(Killed):
                await self.sync()

    def forget_history(self) -> None:
        """Time passes in which the proxies that have the new revision restart: they have counted nothing but harm."""
        for fake in self.gateways.proxies.values():
            if fake.pushes:
                fake.traffic = fake.harm + Counters(100, 0, 100, 1000)

    async def change(self, content: bytes) -> None:
        """The sources change while nobody syncs; what did harm still does."""
        self.new = await store_revision(self.kube, self.fleet, Revision(number=0, content=content, marker="newer"))
        self.gateways.markers[self.new.hash] = "newer"


@pytest.mark.parametrize("restarted", [False, True], ids=["same proxies", "restarted proxies"])
@pytest.mark.parametrize("proxies", [4, 3, 2])
async def test_a_wave_that_was_killed_unjudged_is_not_judged_by_its_own_harm(
    monkeypatch: pytest.MonkeyPatch, proxies: int, restarted: bool
) -> None:
    """Of four proxies one still has the old revision, of three and two none has."""
    town = await Harmed(proxies).open()
    await town.sync_until_killed(monkeypatch, 2)
    assert town.loaded().count("new") == min(3, proxies)
    if restarted:
        town.forget_history()
    for _ in range(2):
        # The first run goes on with what the killed one wrote down; so does one that is killed in its turn.
        await town.sync_until_killed(monkeypatch, 2)
    report = await town.sync()
    assert report.verdict is Verdict.ROLLED_BACK, report.outcome.message
    assert (report.outcome.reason, "0.0% of" in report.outcome.message) == ("ErrorsIncreased", True)
    assert town.loaded() == ["old"] * proxies
    assert (await town.verdicts())[2] == "Harmful"


@pytest.mark.parametrize("proxies", [5, 2], ids=["some are old", "nobody is"])
async def test_a_later_revision_is_not_judged_by_the_harm_of_one_that_was_killed(
    monkeypatch: pytest.MonkeyPatch, proxies: int
) -> None:
    town = await Harmed(proxies).open()
    await town.sync_until_killed(monkeypatch, 2)
    town.forget_history()
    await town.change(b'{"newer":1}')
    report = await town.sync()
    assert report.outcome.reason == "ErrorsIncreased"
    assert town.loaded() == ["old"] * proxies


@pytest.mark.parametrize("known", ["last good", "current and good"])
async def test_what_is_in_force_is_judged_by_its_own_past(known: str) -> None:
    """Errors that were there when nothing changed are no harm of a sync that changes nothing."""
    town = await Judged(3, harm=Counters(100, 100, 100, 1000)).open()
    await record_baseline(town.kube, town.fleet, 2, Counters(1000, 0, 1000, 10_000))
    for number in (1, 2) if known == "current and good" else (1,):
        await record_verdict(town.kube, town.fleet, number, RevisionOutcome.GOOD)
    field = "last_good_hash" if known == "last good" else "current_hash"
    town.fleet = town.fleet.replace(status=town.fleet.status.model_copy(update={field: NEW.hash}))
    for fake in town.gateways.proxies.values():
        fake.loaded, fake.routes, fake.pushes = NEW.hash, NEW.marker, 1
        fake.traffic = Counters(1000, 500, 1000, 10_000)
    report = await town.sync()
    assert report.verdict is Verdict.COMPLETED
    assert {w.judgement.outcome.reason for w in report.waves if w.judgement} == {"MetricsHealthy"}


@pytest.mark.parametrize("metrics", ["healthy", "off", "unreadable"])
async def test_good_or_missing_metrics_stop_nobody(metrics: str) -> None:
    town = await Judged(4).open()
    for fake in town.gateways.proxies.values():
        if metrics == "off":
            fake.traffic = None
        if metrics == "unreadable":

            async def counters() -> Counters | None:
                raise Unavailable("no answer")

            fake.counters = counters  # type: ignore[method-assign]
    report = await town.sync()
    assert report.verdict is Verdict.COMPLETED
    found = {w.judgement.outcome.reason for w in report.waves if w.judgement}
    assert found == {"MetricsHealthy" if metrics == "healthy" else "MetricsInconclusive"}


async def test_nothing_is_read_where_nothing_is_soaked() -> None:
    town = await Town(3).open()
    await town.sync()
    assert not any("counters" in fake.log for fake in town.gateways.proxies.values())


async def test_an_observer_sees_plan_steps_and_waves() -> None:
    town = await Town(4).open()
    town.gateways.proxies["p3"].stuck = True
    seen: list[str] = []

    class Watching(Observer):
        async def run_step(self, name: str, work: Any) -> Any:
            seen.append(f"step {name}")
            return await work()

        async def note_plan(self, revision: Revision, waves: Sequence[Wave]) -> None:
            seen.append(f"plan {revision.number}: {[len(w.proxies) for w in waves]}")

        async def note_wave(self, report: WaveReport) -> None:
            seen.append(f"wave {report.wave.name}")

    await town.sync(observer=Watching())
    assert seen == [
        "plan 2: [1, 2, 1]",
        *("step canary", "wave canary", "step wave-1", "wave wave-1", "step wave-2", "wave wave-2"),
        "step going-back",
    ]
