"""How long the controller waits: never for ever, never not at all, whatever has failed for however long."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from konverge.controller import leading, mending, site
from konverge.controller.leading import RENDER_SECONDS, attempt, next_pause
from konverge.controller.mending import LONGEST_PAUSE, Mender, next_mend
from konverge.controller.queueing import ChangeQueue
from konverge.controller.roster import Member, Roster
from konverge.controller.site import MOST_KNOWN, Known
from konverge.errors import Unavailable
from konverge.model.condition import Outcome
from konverge.model.proxy import Proxy, ProxyOutcome
from tests.unit.controller.world import World
from tests.unit.kube.virtual_time import run_virtually

EVER = 5000
"""Failures in a row that a week brings; 2.0 ** 1024 is no float any more."""


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    opened = await World(monkeypatch).open()
    await opened.controller.reconcile()
    return opened


async def test_work_that_always_fails_is_paused_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def work() -> None:
        raise Unavailable("nobody answers")

    here = world.controller.site
    here._failures = EVER
    with monkeypatch.context() as patched:
        patched.setattr(site.asyncio, "sleep", sleep)
        await here.start(work())
    assert slept == [site.LONGEST_PAUSE]


async def test_a_proxy_that_owes_its_identity_for_a_week_is_still_mended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def heal(_kube: Any, _fleet: Any, proxies: list[Proxy], _clock: Any) -> None:
        asked.append(proxies[0].name)
        raise Unavailable("no shell")

    monkeypatch.setattr(mending, "heal_identities", heal)
    fleet = world.controller.read_fleet()
    assert fleet is not None
    member = next(iter(world.controller.site.roster))
    member.owes, member.mends = True, EVER
    await Mender(world.controller.site).start(fleet)
    await world.controller.site.finish()
    assert asked == [member.proxy.name]
    assert not member.busy, "it would never be visited again"
    assert 0 < (next_mend([member], member.mend_at - LONGEST_PAUSE / 2) or 0) <= LONGEST_PAUSE


def owing(**times: float) -> Member:
    member = Member(Proxy(name="p", namespace="ns", ip="127.0.0.2", uid="u"), 0.0, owes=True)
    for name, value in times.items():
        setattr(member, name, value)
    return member


def controller(roster: Roster, until: float | None = None) -> Any:
    aim = SimpleNamespace(settled=SimpleNamespace(until=until))
    return SimpleNamespace(site=SimpleNamespace(roster=roster, aim=aim), commissioner=SimpleNamespace(busy=False))


def test_what_is_due_and_cannot_be_started_keeps_nobody_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading.time, "monotonic", lambda: 1000.5)
    roster = Roster()
    roster.update([Proxy(name="p", namespace="ns", ip="127.0.0.2", uid="u", ready=True)], 0.0)
    (member,) = roster
    failed = ProxyOutcome(proxy="p", ok=False, outcome=Outcome(reason="ProxyUnreachable"))
    roster.note(member, failed, 900.0, "h")
    assert next_pause(controller(roster), 1000.0) == RENDER_SECONDS, "the fleet is paused, or a roll-out under way"
    member.owes, member.mend_at = True, 950.0
    assert next_pause(controller(roster), 1000.0) == RENDER_SECONDS
    assert next_pause(controller(roster, until=999.0), 1000.0) == RENDER_SECONDS


def test_what_becomes_due_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading.time, "monotonic", lambda: 1000.5)
    roster = Roster()
    roster.members["u"] = owing(mend_at=1003.5)
    assert next_pause(controller(roster), 1000.0) == pytest.approx(3.0)
    assert next_pause(controller(roster, until=1002.5), 1000.0) == pytest.approx(2.0)
    roster.members["u"].mend_at = 1000.25
    assert next_pause(controller(roster), 1000.0) == leading.SHORTEST_PAUSE, "it became due while we acted"


def test_the_act_that_failed_is_tried_again_without_a_change() -> None:
    async def story() -> None:
        acted: list[float] = []

        async def act(_fleet: Any) -> None:
            acted.append(asyncio.get_running_loop().time())
            if len(acted) < 3:
                raise Unavailable("nobody answers")

        reconciler: Any = controller(Roster())
        reconciler.site.note_error = lambda _error: None
        reconciler.read_fleet, reconciler.act = object, act
        queue = ChangeQueue()
        running = asyncio.create_task(leading._act(reconciler, queue))
        queue.add(leading.Key.PROXIES)
        await asyncio.sleep(10 * leading.RETRY_SECONDS)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert len(acted) == 3, acted
        assert acted[1] - acted[0] >= leading.RETRY_SECONDS, "and not at once"

    run_virtually(story())


async def test_a_fault_of_ours_ends_one_piece_of_work_only(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        raise KeyError("spec")

    before = world.controller.counters.failures
    with caplog.at_level(logging.ERROR):
        assert not await attempt(world.controller, work)
    assert world.controller.counters.failures == before + 1
    assert "KeyError" in caplog.text


async def test_nothing_is_pushed_before_it_is_known_whether_the_draft_did_harm(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.change("bad", harmful=True)
    assert world.routed() == {"one"}
    world.restart()
    fleet = world.controller.read_fleet()
    assert fleet is not None
    with monkeypatch.context() as cut:

        async def unanswered(*_args: Any, **_options: Any) -> None:
            raise Unavailable("nobody answers")

        cut.setattr("konverge.controller.aiming.list_records", unanswered)
        with pytest.raises(Unavailable):
            await world.controller.compile(fleet)
        assert not await world.controller.act(fleet)
    pushed = world.pushes()
    await world.controller.reconcile()
    assert world.routed() == {"one"}
    assert world.pushes() == pushed, "the next rendering finds the same draft, and still that it did harm"
    world.start("p3")
    await world.controller.reconcile()
    assert "p3" in world.ready(), "and from then on there is work again"


def test_only_so_many_revisions_are_remembered_by_their_hash() -> None:
    known = Known()
    for number in range(MOST_KNOWN):
        known[f"h{number}"] = number
    known["h0"] = 0
    known["new"] = MOST_KNOWN
    assert len(known) == MOST_KNOWN
    assert "h0" in known, "it was met a moment ago"
    assert "h1" not in known
