"""Waves: everybody is in exactly one, the canary comes first, and only harm stops them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konverge.decide.waving import may_continue, plan_waves, proves_something
from konverge.model.condition import Outcome
from konverge.model.fleet import Rollout
from konverge.model.proxy import Proxy, ProxyOutcome


def proxy(name: str, ready: bool = True) -> Proxy:
    return Proxy(name=name, namespace="ns", ip="127.0.0.2", ready=ready)


def outcome(reason: str, ok: bool = False) -> ProxyOutcome:
    return ProxyOutcome(proxy="p", ok=ok, outcome=Outcome(reason=reason))


@given(
    names=st.sets(st.text("abcdef0123456789", min_size=1, max_size=6), max_size=40),
    canary=st.integers(0, 5),
    size=st.integers(1, 10),
)
def test_every_proxy_is_in_exactly_one_wave(names: set[str], canary: int, size: int) -> None:
    rollout = Rollout(canary=min(canary, size), wave_size=size)
    waves = plan_waves([proxy(n) for n in names], rollout)
    planned = [p.name for wave in waves for p in wave.proxies]
    assert sorted(planned) == sorted(names)
    assert [wave.index for wave in waves] == list(range(len(waves)))
    assert all(len(w.proxies) <= (canary if w.name == "canary" else size) for w in waves)


@pytest.mark.parametrize(
    ("count", "rollout", "sizes"),
    [
        (0, {}, []),
        (1, {}, [1]),
        (2, {}, [1, 1]),
        (2, {"canary": 5}, [1, 1]),
        (3, {"canary": 3}, [2, 1]),
        (5, {"canary": 0}, [5]),
        (100, {}, [1, 4, 16, 50, 29]),
        (10, {"growth": 1}, [1] * 10),
        (10, {"growth": 1.5, "canary": 2}, [2, 3, 5]),
        (12, {"canary": 2, "wave_size": 4}, [2, 4, 4, 2]),
    ],
)
def test_waves_grow_from_a_canary_that_is_never_everybody(count: int, rollout: Any, sizes: list[int]) -> None:
    waves = plan_waves([proxy(f"p{n:03}") for n in range(count)], Rollout(**rollout))
    assert [len(wave.proxies) for wave in waves] == sizes


def test_a_later_plan_goes_on_counting() -> None:
    waves = plan_waves([proxy(f"p{n}") for n in range(3)], Rollout(), first=2)
    assert [(w.index, w.name) for w in waves] == [(2, "canary-2"), (3, "wave-3")]


def test_silence_proves_nothing_a_refusal_does() -> None:
    assert not proves_something([outcome("ProxyUnreachable")])
    assert proves_something([outcome("ProxyUnreachable"), outcome("ConfigurationRefused")])
    assert proves_something([outcome("Configured", ok=True)])


def test_proxies_without_traffic_are_the_canary() -> None:
    waves = plan_waves([proxy("a"), proxy("b", ready=False), proxy("c")], Rollout(canary=1))
    assert waves[0].name == "canary"
    assert [p.name for p in waves[0].proxies] == ["b"]


def test_a_sick_proxy_does_not_stop_the_waves() -> None:
    assert may_continue([outcome("Unreachable"), outcome("Busy"), outcome("Configured", ok=True)], Rollout())


def test_a_refused_configuration_stops_the_waves() -> None:
    assert not may_continue([outcome("ConfigurationRefused")], Rollout())
    assert may_continue([outcome("ConfigurationRefused")], Rollout(max_failures=1))
