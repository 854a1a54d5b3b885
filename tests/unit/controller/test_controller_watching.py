"""Changes that come close together are one, steady churn holds nothing up, and only sources wake the controller."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from konverge.controller.watching import LONGEST_SECONDS, QUIET_SECONDS, Signal, Sources
from konverge.kube.resources import ENDPOINT_SLICES, INGRESSES, PROXY_FLEETS, SECRETS, SOURCES
from tests.unit.kube.virtual_time import now, run_virtually


def wake_ups(changes: list[float], until: float = 20.0) -> list[float]:
    """Return when a waiter is woken while changes come at these times."""

    async def story() -> list[float]:
        signal, woken = Signal(), []
        for at in changes:
            asyncio.get_running_loop().call_at(at, signal.set)
        while now() < until:
            if await signal.wait(until - now()):
                woken.append(now())
        return woken

    found: list[float] = run_virtually(story())
    return found


def test_without_a_change_the_time_passes() -> None:
    async def story() -> tuple[bool, float]:
        return await Signal().wait(5.0), now()

    assert run_virtually(story()) == (False, 5.0)


def test_one_change_is_acted_upon_when_it_has_settled() -> None:
    assert [round(at, 3) for at in wake_ups([3.0])] == [3.0 + QUIET_SECONDS]


def test_a_burst_is_one() -> None:
    burst = [3.0 + 0.05 * i for i in range(8)]
    woken = wake_ups(burst)
    assert len(woken) == 1
    assert burst[-1] <= woken[0] <= burst[-1] + 2 * QUIET_SECONDS


def test_two_changes_far_apart_are_two() -> None:
    assert len(wake_ups([1.0, 2.0])) == 2


def test_steady_churn_is_acted_upon_all_the_same() -> None:
    woken = wake_ups([1.0 + 0.03 * i for i in range(300)])
    gaps = [later - earlier for earlier, later in itertools.pairwise(woken)]
    assert woken[0] <= 1.0 + LONGEST_SECONDS + QUIET_SECONDS
    assert max(gaps) <= LONGEST_SECONDS + 2 * QUIET_SECONDS
    assert min(gaps) >= QUIET_SECONDS


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0.0, 8.0), min_size=1, max_size=30))
def test_every_change_is_followed_by_a_wake_up_in_time(changes: list[float]) -> None:
    woken = wake_ups(changes)
    for at in changes:
        assert any(at <= w <= at + LONGEST_SECONDS + 2 * QUIET_SECONDS for w in woken), (at, woken)


def test_a_change_before_the_wait_is_not_lost() -> None:
    async def story() -> bool:
        signal = Signal()
        signal.set()
        return await signal.wait(1.0)

    assert run_virtually(story())


class Ears:
    """Counts what wakes the controller."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


def sources() -> tuple[Sources, Ears]:
    ears = Ears()
    kube: Any = object()
    return Sources(kube, "shop", "ns", ears), ears


def fleet(generation: int, **status: Any) -> dict[str, Any]:
    metadata = {"name": "shop", "namespace": "ns", "generation": generation, "resourceVersion": str(len(status))}
    return {"metadata": metadata, "status": status}


def test_there_is_one_watch_per_kind_whatever_the_number_of_proxies() -> None:
    found, _ = sources()
    caches = list(found.all())
    assert [cache.resource for cache in caches] == [*SOURCES, PROXY_FLEETS]
    assert next(c for c in caches if c.resource == PROXY_FLEETS).fields == "metadata.name=shop"
    secrets = next(c for c in caches if c.resource == SECRETS)
    assert "!konverge.dev/fleet" in secrets.labels, "our own revisions must not wake us"


def test_our_own_status_does_not_wake_us_but_a_new_spec_does() -> None:
    found, ears = sources()
    for body in (fleet(1), fleet(1, currentRevision=1), fleet(1, currentRevision=2), fleet(2), fleet(2, a=1)):
        found.fleets._take("MODIFIED", body)
    assert ears.calls == 2


def test_every_source_wakes_us_and_is_handed_on() -> None:
    found, ears = sources()
    ingress = next(c for c in found.all() if c.resource == INGRESSES)
    ingress._take("ADDED", {"metadata": {"name": "a", "namespace": "x"}})
    ingress._take("DELETED", {"metadata": {"name": "a", "namespace": "x"}})
    assert ears.calls == 2
    ingress._take("ADDED", {"metadata": {"name": "b", "namespace": "x"}})
    assert [body["metadata"]["name"] for body in found.objects()] == ["b"]


def test_proxies_are_looked_for_in_the_namespace_of_the_fleet_only() -> None:
    found, _ = sources()
    slices = next(c for c in found.all() if c.resource == ENDPOINT_SLICES)
    for name, namespace, service in (("a", "ns", "shop-admin"), ("b", "other", "shop-admin"), ("c", "ns", "web")):
        labels = {"kubernetes.io/service-name": service}
        slices._take("ADDED", {"metadata": {"name": name, "namespace": namespace, "labels": labels}})
    assert [piece["metadata"]["name"] for piece in found.slices("shop-admin")] == ["a"]


def test_it_is_synced_when_every_kind_was_listed_once() -> None:
    async def story() -> None:
        found, _ = sources()
        for cache in found.all():
            assert not found.synced
            cache.synced.set()
        await found.wait_synced()
        assert found.synced

    run_virtually(story())
