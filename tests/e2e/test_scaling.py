"""A fleet is scaled up and down under load, over and over: no request fails, nobody serves before it is verified.

An unconfigured proxy answers 404, which the load counts as a failure. Beyond that the API server's versions put the
opening of each gate before the moment in which the pod's endpoint became ready.

``KONVERGE_SCALE_STEPS`` is the number of steps, 100 for the numbers in docs/explanation/load-on-the-api.md.
"""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from konverge.cli.demo.staging import NAMESPACE, SERVICE
from konverge.operate.orchestrator import PrefectServer
from konverge.operate.workloads import scale
from tests.e2e.living_fleet import describe, given_a_living_fleet
from tests.e2e.scenario import Scenario, open_scenario
from tests.e2e.traffic_history import History, Life, watching

STEPS = int(os.environ.get("KONVERGE_SCALE_STEPS") or 12)
SEED = int(os.environ.get("KONVERGE_TEST_SEED") or random.SystemRandom().randrange(2**32))
FEWEST, MOST = 2, 8 if STEPS >= 50 else 5
STEP_SECONDS = 180.0
RATE = 200.0 if STEPS >= 50 else 60.0
"""Requests per second; the suite shares its two cores with much else."""

pytestmark = [
    *([pytest.mark.long] if STEPS >= 50 else ()),
    pytest.mark.lab,
    pytest.mark.prefect,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300 + 60 * STEPS),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario(prefect_server: PrefectServer, lab_home: Path) -> AsyncIterator[Scenario]:
    async with open_scenario("scaling", lab_home, prefect_server) as opened:
        await given_a_living_fleet(opened, FEWEST)
        yield opened


def choose_sizes(seed: int) -> list[int]:
    """Return the sizes, each another one than before."""
    dice, sizes = random.Random(seed), [FEWEST]
    while len(sizes) <= STEPS:
        sizes.append(dice.choice([size for size in range(FEWEST, MOST + 1) if size != sizes[-1]]))
    return sizes[1:]


async def test_no_request_fails_and_nobody_serves_before_it_is_verified(scenario: Scenario) -> None:
    # given
    fleet, sizes = await scenario.fleet(), choose_sizes(SEED)
    print(f"KONVERGE_TEST_SEED={SEED}: {sizes}")
    # when
    async with scenario.under_load(RATE), watching(scenario.kube, NAMESPACE, SERVICE, fleet.labels) as history:
        for size in sizes:
            await scale(scenario.kube, fleet.deployment, NAMESPACE, size)
            try:
                await history.until_serving(size, STEP_SECONDS)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{await describe(scenario)}") from None
    # then
    scenario.then_no_request_failed(at_least=1000)
    assert history.find_early() == []
    assert {name for _, name in history.joined} >= {name for name, life in history.lives.items() if life.in_traffic}
    assert len(history.joined) >= sum(max(0, b - a) for a, b in zip([FEWEST, *sizes], sizes, strict=False))
    show(history, scenario.reports[-1].requests.total)


def show(history: History, requests: int) -> None:
    """Print how long new pods took."""
    lives = [life for life in history.lives.values() if life.in_traffic is not None and life.running is not None]
    for what, times in (
        ("pod created to in traffic", [life.in_traffic - life.created for life in lives if life.in_traffic]),
        (
            "container running to in traffic",
            [life.in_traffic - (life.running or 0) for life in lives if life.in_traffic],
        ),
    ):
        ordered = sorted(times)
        p99 = ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]
        print(f"{what}: p50 {statistics.median(ordered):.2f} s, p99 {p99:.2f} s of {len(ordered)}")
    print(f"{STEPS} steps, {requests} requests, none failed, {len(history.joined)} pods came into traffic")


async def test_the_proof_finds_who_was_early() -> None:
    history = History()
    pod = {"metadata": {"name": "a", "resourceVersion": "5"}, "status": {"conditions": []}}
    endpoint = {"targetRef": {"name": "a"}, "conditions": {"ready": True}}
    piece = {"metadata": {"resourceVersion": "6"}, "endpoints": [endpoint]}
    opened = {"conditions": [{"type": "konverge.dev/configured", "status": "True"}]}
    history.note_pod("ADDED", pod)
    history.note_slice("MODIFIED", piece)
    assert history.find_early() == ["a was in traffic at 6, its gate opened at no time"]
    history.note_pod("MODIFIED", {"metadata": {"name": "a", "resourceVersion": "7"}, "status": opened})
    assert history.find_early() == ["a was in traffic at 6, its gate opened at 7"]
    history.lives["a"] = Life(0.0, gate_open=5)
    assert history.find_early() == []
