"""Balancing and health."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from konverge.lab.kong.proxy.balancer import Balancer, Target, split_target
from konverge.lab.kong.proxy.health import is_checked, note


def balancer(algorithm: str = "round-robin", weights: tuple[int, ...] = (1, 1), **checks: Any) -> Balancer:
    targets = [Target("u", f"t{at}:1", f"t{at}", 1, weight) for at, weight in enumerate(weights)]
    return Balancer({"name": "u", "algorithm": algorithm, "healthchecks": {"passive": checks}}, targets)


def picks(found: Balancer, count: int, key: str | None = None) -> Counter[str]:
    chosen = (found.pick(key, set()) for _ in range(count))
    return Counter(target.name for target in chosen if target is not None)


def test_round_robin_follows_weights() -> None:
    assert picks(balancer(weights=(3, 1)), 400) == {"t0:1": 300, "t1:1": 100}


def test_a_weight_of_zero_gets_nothing() -> None:
    assert picks(balancer(weights=(1, 0)), 10) == {"t0:1": 10}


def test_hashing_sticks_and_moves_only_what_it_must() -> None:
    found = balancer("consistent-hashing", (100, 100, 100))
    before = {key: found.pick(str(key), set()) for key in range(200)}
    assert all(found.pick(str(key), set()) is before[key] for key in before)
    found.targets[0].healthy = False
    moved = [key for key in before if found.pick(str(key), set()) is not before[key]]
    assert moved == [key for key, target in before.items() if target is found.targets[0]]


def test_least_connections() -> None:
    found = balancer("least-connections")
    found.targets[0].connections = 3
    assert picks(found, 1) == {"t1:1": 1}


def test_tried_targets_come_last() -> None:
    found = balancer()
    first = found.pick(None, set())
    assert first is not None
    second = found.pick(None, {first.name})
    assert second is not None
    assert second.name != first.name


def test_passive_checks_take_a_target_out() -> None:
    unhealthy = {"http_failures": 2, "tcp_failures": 1, "http_statuses": [500]}
    found = balancer(unhealthy=unhealthy, healthy={"http_statuses": [200], "successes": 0})
    assert is_checked(found)
    target = found.targets[0]
    note(found, target, "http", status=500)
    note(found, target, "http", status=200)
    note(found, target, "http", status=500)
    assert target.healthy, "a success in between resets the count"
    note(found, target, "http", status=500)
    assert not target.healthy
    assert picks(found, 4) == {"t1:1": 4}
    note(found, found.targets[1], "tcp")
    assert found.pick(None, set()) is None


def test_without_checks_nothing_is_taken_out() -> None:
    found = balancer()
    assert not is_checked(found)
    for _ in range(20):
        note(found, found.targets[0], "tcp")
    assert found.targets[0].healthy


@pytest.mark.parametrize(("text", "expected"), [("h:1", ("h", 1)), ("h", ("h", 8000)), ("[::1]:5", ("::1", 5))])
def test_targets(text: str, expected: tuple[str, int]) -> None:
    assert split_target(text) == expected
