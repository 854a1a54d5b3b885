"""Repeats go one after the other, at one pace; the first that gets through ends the rest of the others."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import orjson
from virtual_time import now, run_virtually

from konverge.kube.client import KubeClient
from konverge.kube.pacing import Pace
from konverge.kube.presence import PERIOD, UNAGGREGATED_PERIOD, Presence, read_discovery
from konverge.kube.resources import INGRESSES, PROXY_FLEETS, Resource


def test_callers_go_one_after_the_other() -> None:
    async def story() -> list[float]:
        pace, times = Pace(10.0), []

        async def go() -> None:
            await pace.wait()
            times.append(now())

        await asyncio.gather(*(go() for _ in range(30)))
        return times

    times = run_virtually(story())
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert times[0] == 0
    assert all(abs(gap - 0.1) < 1e-6 for gap in gaps)


def test_a_lone_caller_does_not_wait() -> None:
    async def story() -> float:
        pace = Pace(10.0)
        await pace.wait()
        await asyncio.sleep(5)
        await pace.wait()
        return now()

    assert run_virtually(story()) == 5


def test_the_first_success_ends_the_rest_of_all_and_they_keep_the_pace() -> None:
    async def story() -> list[float]:
        pace, times = Pace(10.0), []

        async def go() -> None:
            await pace.rest(30.0)
            times.append(now())

        work = [asyncio.create_task(go()) for _ in range(5)]
        await asyncio.sleep(3)
        pace.note_success()
        await asyncio.gather(*work)
        return times

    times = run_virtually(story())
    assert times[0] == 3
    assert abs(times[-1] - 3.4) < 1e-6


class Discovery(KubeClient):
    """Answers the discovery document."""

    def __init__(self, served: list[Resource], aggregated: bool = True) -> None:
        self.served, self.aggregated, self.asked = served, aggregated, 0

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        self.asked += 1
        if not self.aggregated:
            return orjson.dumps({"kind": "APIGroupList", "groups": []})
        items = [
            {
                "metadata": {"name": r.group},
                "versions": [{"version": r.version, "resources": [{"resource": r.plural}]}],
            }
            for r in self.served
        ]
        return orjson.dumps({"kind": "APIGroupDiscoveryList", "items": items})


def test_any_number_of_absent_kinds_costs_one_request() -> None:
    async def story() -> tuple[float, int]:
        api = Discovery([])
        presence = Presence(api)
        kinds = [Resource("x.io", "v1", f"k{i}", f"K{i}") for i in range(20)]
        work = [asyncio.create_task(presence.wait_served(kind)) for kind in kinds]
        await asyncio.sleep(10 * PERIOD)
        asked = api.asked
        api.served = kinds
        await asyncio.gather(*work)
        took = now() - 10 * PERIOD
        await asyncio.sleep(10 * PERIOD)
        assert api.asked <= asked + 1, "nobody waits: nothing is asked"
        return took, asked

    took, asked = run_virtually(story())
    assert asked <= 12
    assert took <= 1.2 * PERIOD


def test_a_server_that_does_not_aggregate_is_asked_less_often() -> None:
    async def story() -> tuple[float, int]:
        api = Discovery([], aggregated=False)
        await Presence(api).wait_served(INGRESSES)
        return now(), api.asked

    took, asked = run_virtually(story())
    assert asked == 1
    assert took >= UNAGGREGATED_PERIOD - 0.2 * PERIOD


def test_discovery_names_group_version_and_plural() -> None:
    assert read_discovery({"kind": "APIGroupList"}) is None
    item = {
        "metadata": {"name": PROXY_FLEETS.group},
        "versions": [{"version": "v1alpha1", "resources": [{"resource": "proxyfleets"}]}],
    }
    found = read_discovery({"kind": "APIGroupDiscoveryList", "items": [item]})
    assert found == {(PROXY_FLEETS.group, PROXY_FLEETS.version, PROXY_FLEETS.plural)}
