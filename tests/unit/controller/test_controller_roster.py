"""Who is a member, who is due, and when the next one is: newcomers that do not listen yet are tried again quickly."""

from __future__ import annotations

import random

from konverge.controller.roster import KNOCKING_SECONDS, LONGEST_KNOCK, Member, Roster
from konverge.model.condition import Outcome
from konverge.model.proxy import Proxy, ProxyOutcome


def proxy(name: str, *, ready: bool = False, uid: str = "") -> Proxy:
    return Proxy(name=name, namespace="ns", ip="127.0.0.2", uid=uid or f"uid-{name}", ready=ready)


def failed(member: Member, reason: str = "ProxyUnreachable") -> ProxyOutcome:
    return ProxyOutcome(proxy=member.proxy.name, ok=False, outcome=Outcome(reason=reason))


def test_who_came_who_left_and_whose_readiness_changed() -> None:
    roster = Roster()
    assert [m.proxy.name for m in roster.update([proxy("a"), proxy("b", ready=True)], 0.0).came] == ["a", "b"]
    assert [m.open for m in roster] == [False, True]
    movement = roster.update([proxy("a", ready=True), proxy("b", uid="another")], 1.0)
    assert [m.proxy.name for m in movement.flipped] == ["a"]
    assert [m.proxy.uid for m in movement.came] == ["another"], "a pod of the same name is another one"
    assert [m.proxy.uid for m in movement.left] == ["uid-b"]
    assert not roster.update([proxy("a", ready=True), proxy("b", uid="another")], 2.0)


def test_a_newcomer_that_does_not_listen_is_tried_again_within_a_second() -> None:
    random.seed(1)
    roster = Roster()
    roster.update([proxy("a")], 0.0)
    (member,) = roster
    now, tries = 0.0, 0
    while now < 10.0:
        assert roster.is_due(member, now, "h")
        roster.note(member, failed(member), now, "h")
        pause = roster.next_due(now)
        assert pause is not None
        assert 0 < pause <= 1.2 * LONGEST_KNOCK
        assert not roster.is_due(member, now + pause / 2, "h")
        now, tries = now + pause + 1e-6, tries + 1
    assert 10 <= tries <= 30


def test_an_old_or_a_serving_one_goes_by_the_back_off_of_the_sick() -> None:
    for ready, age in ((True, 0.0), (False, KNOCKING_SECONDS)):
        roster = Roster()
        roster.update([proxy("a", ready=ready)], 0.0)
        (member,) = roster
        for _ in range(6):
            roster.note(member, failed(member), age, "h")
        pause = roster.next_due(age)
        assert pause is not None
        assert pause > 10


def test_one_that_is_visited_is_not_due_and_keeps_nobody_awake() -> None:
    roster = Roster()
    roster.update([proxy("a")], 0.0)
    (member,) = roster
    roster.note(member, failed(member), 0.0, "h")
    member.busy = True
    assert not roster.is_due(member, 100.0, "h")
    assert roster.next_due(100.0) is None


def test_a_good_visit_ends_the_back_off() -> None:
    roster = Roster()
    roster.update([proxy("a")], 0.0)
    (member,) = roster
    roster.note(member, failed(member, "ConfigurationRefused"), 0.0, "h")
    assert not roster.is_due(member, 0.1, "h")
    assert roster.is_due(member, 0.1, "another configuration")
    roster.note(member, ProxyOutcome(proxy="a", ok=True, outcome=Outcome(reason="Configured")), 0.2, "h")
    assert roster.is_due(member, 0.2, "h")
    assert roster.next_due(0.2) is None
