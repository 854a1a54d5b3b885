"""A sick proxy is tried again later and later, and forgotten when it is well or gone."""

from __future__ import annotations

import random

import pytest

from konverge.model.condition import Outcome
from konverge.model.proxy import Proxy, ProxyOutcome
from konverge.operate.quarantining import FIRST_SECONDS, LOCK_SECONDS, LONGEST_SECONDS, Quarantine

PROXY = Proxy(name="p0", namespace="ns", ip="127.0.0.2", uid="u0")


def failure(reason: str = "ProxyUnreachable") -> ProxyOutcome:
    return ProxyOutcome(proxy="p0", ok=False, outcome=Outcome(reason=reason))


def steady() -> Quarantine:
    return Quarantine(jitter=lambda low, high: 1.0)


def test_the_back_off_doubles_up_to_a_minute() -> None:
    quarantine, now, delays = steady(), 0.0, []
    for _ in range(9):
        assert quarantine.due(PROXY, now)
        delays.append(quarantine.failed(PROXY, failure(), now))
        assert not quarantine.due(PROXY, now + delays[-1] - 0.001)
        now += delays[-1]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert (delays[0], delays[-1]) == (FIRST_SECONDS, LONGEST_SECONDS)


def test_proxies_that_fell_ill_together_are_tried_apart() -> None:
    quarantine = Quarantine(random.Random(4711).uniform)
    delays = {quarantine.failed(PROXY.model_copy(update={"uid": str(n)}), failure(), 0.0) for n in range(50)}
    assert len(delays) == 50
    assert 0.75 <= min(delays) < max(delays) <= 1.25


def test_a_lock_left_behind_is_waited_for() -> None:
    assert steady().failed(PROXY, failure("WorkerLost"), 0.0) == LOCK_SECONDS


@pytest.mark.parametrize(("reason", "due"), [("ConfigurationRefused", True), ("ProxyUnreachable", False)])
def test_a_refusal_is_about_the_revision_not_the_proxy(reason: str, due: bool) -> None:
    quarantine = steady()
    quarantine.failed(PROXY, failure(reason), 0.0, "old")
    assert not quarantine.due(PROXY, 0.5, "old")
    assert quarantine.due(PROXY, 0.5, "new") is due


def test_another_ailment_starts_anew() -> None:
    quarantine = steady()
    for now in (0.0, 1.0, 3.0):
        quarantine.failed(PROXY, failure(), now)
    assert quarantine.failed(PROXY, failure("ProxyBusy"), 7.0) == FIRST_SECONDS


def test_a_good_visit_heals() -> None:
    quarantine = steady()
    quarantine.note(PROXY, failure(), 0.0)
    assert quarantine.next_due(0.25) == 0.75
    quarantine.note(PROXY, failure().model_copy(update={"ok": True}), 0.5)
    assert quarantine.due(PROXY, 0.5)
    assert quarantine.next_due(0.5) is None
    assert not quarantine.recovered(PROXY)


def test_who_must_not_act_makes_nobody_sick() -> None:
    quarantine = steady()
    quarantine.note(PROXY, failure("NotLeading"), 0.0)
    assert quarantine.find(PROXY) is None


def test_those_that_are_gone_are_forgotten() -> None:
    quarantine = steady()
    quarantine.failed(PROXY, failure(), 0.0)
    quarantine.keep_only([PROXY.model_copy(update={"uid": "other"})])
    assert quarantine.find(PROXY) is None
