"""A fleet whose runner is Prefect, end to end: server, worker, deployments, controller; all of it under load.

One load runs from the first test to the last: each request is counted, and none may fail, also while workers are
killed and the server is away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from konverge.cli.demo.staging import NAMESPACE, SERVICE
from konverge.kube.resources import EVENTS
from konverge.lab.load.process import LoadProcess
from konverge.operate.orchestrator import PrefectServer, start_server, stop_server
from konverge.operate.workloads import scale
from tests.e2e.living_fleet import (
    add_route,
    describe,
    hashes_of,
    host_of,
    proxies_of,
    until,
    until_all_answer,
)
from tests.e2e.prefect_runner import (
    Runs,
    Worker,
    deploy,
    given_a_fleet_that_prefect_runs,
    reading,
    until_blocked,
)
from tests.e2e.scenario import Scenario, open_scenario
from tests.e2e.test_sync_crash import rendered_hash
from tests.e2e.test_sync_crash import watching as watching_hashes
from tests.e2e.traffic_history import watching as watching_traffic

pytestmark = [
    pytest.mark.lab,
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]

PROXIES, MORE = 3, 5
SYNC, ONBOARDING = "config-sync", "proxy-onboarding"


@dataclass
class Town:
    """Everything that takes part."""

    scenario: Scenario
    server: PrefectServer
    home: Path
    worker: Worker
    runs: Runs
    load: LoadProcess


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(lab_home: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    home = tmp_path_factory.mktemp("runner")
    server = await start_server(home)
    try:
        async with open_scenario("runner", lab_home, server) as scenario, reading(server) as runs:
            await deploy(server, home)
            worker = Worker(server, home, scenario.lab.kubeconfig)
            await worker.start()
            try:
                await given_a_fleet_that_prefect_runs(scenario, PROXIES)
                async with scenario.under_load() as load:
                    yield Town(scenario, server, home, worker, runs, load)
                scenario.then_no_request_failed()
            finally:
                await worker.kill()
    finally:
        await stop_server(home)


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def told(town: Town, request: pytest.FixtureRequest) -> None:
    """A request that fails is told with the test in which it did."""
    await town.load.mark(request.node.name.removeprefix("test_")[:30])


async def test_a_change_reaches_all_proxies_by_one_run(town: Town) -> None:
    before = {run["id"] for run in await town.runs.ended(SYNC)}
    await add_route(town.scenario, "first")
    await until_all_answer(town.scenario, PROXIES, 200, host_of("first"))
    await until(lambda: is_ready(town, PROXIES), "the fleet does not say that all are in sync")
    fresh = [run for run in await town.runs.ended(SYNC) if run["id"] not in before]
    run = the_one_that_completed(fresh)
    fleet = await town.scenario.fleet()
    assert run["parameters"]["target"] == {"fleet": fleet.name, "namespace": NAMESPACE}
    assert run["parameters"]["revision"] == fleet.status.current_revision
    artifacts = await town.runs.artifacts(run)
    kinds = [artifact["type"] for artifact in artifacts]
    assert (kinds.count("progress"), kinds.count("table")) == (1, PROXIES), "one of each wave, and one of the whole"
    assert [artifact["data"] for artifact in artifacts if artifact["type"] == "progress"] == [100.0]
    drifted = await events(town, "Drifted")
    assert drifted == [], "what a run has pushed is no drift"


async def test_pods_that_one_scaling_made_are_one_batch_and_none_serves_early(town: Town) -> None:
    scenario = town.scenario
    before = {run["id"] for run in await town.runs.ended(ONBOARDING)}
    fleet = await scenario.fleet()
    async with watching_traffic(scenario.kube, NAMESPACE, SERVICE, fleet.labels) as history:
        await scale(scenario.kube, fleet.deployment, NAMESPACE, MORE)
        try:
            await history.until_serving(MORE, 120)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{await describe(scenario)}") from None
        assert history.find_early() == []
        newcomers = sorted({name for _, name in history.joined if history.lives[name].gate_open is not None})
    await until(lambda: is_ready(town, MORE), "the fleet does not say that all are in sync")
    fresh = [run for run in await town.runs.ended(ONBOARDING) if run["id"] not in before]
    assert the_one_that_completed(fresh)["parameters"]["pods"] == newcomers
    assert len(newcomers) == MORE - PROXIES


async def test_without_a_worker_the_status_says_that_the_run_does_not_start(town: Town) -> None:
    await town.runs.ended(SYNC)
    await town.runs.ended(ONBOARDING)
    await town.worker.kill()
    await add_route(town.scenario, "fourth")
    condition = await until_blocked(town.scenario, "RunNotStarted")
    assert condition.hint.endswith("reference/errors.md#run-not-started")
    run = next(run for run in reversed(await town.runs.all(SYNC)) if not run["end_time"])
    assert run["id"] in condition.message
    await until(lambda: events(town, "RunNotStarted"), "no event tells that the run does not start")
    await town.worker.start()
    await until_all_answer(town.scenario, await size(town), 200, host_of("fourth"))
    await until_blocked(town.scenario, "")


@pytest.mark.long
async def test_a_worker_that_is_killed_in_a_sync_leaves_old_or_new_and_the_next_goes_on(town: Town) -> None:
    scenario = town.scenario
    before = {run["id"] for run in await town.runs.ended(SYNC)}
    old, count = (await scenario.fleet()).status.current_hash, await size(town)
    await add_route(scenario, "second")
    new = await rendered_hash(scenario)

    async def is_half_way() -> bool:
        return set((await hashes_of(scenario)).values()) == {old, new}

    async with watching_hashes(scenario, {old, new}):
        await until(is_half_way, "no sync is seen half way")
        assert await town.worker.kill() >= 2, "the worker and its run"
        assert set((await hashes_of(scenario)).values()) == {old, new}
        await town.worker.start()
        await until_all_answer(scenario, count, 200, host_of("second"))
    fresh = [run for run in await town.runs.ended(SYNC) if run["id"] not in before]
    assert len(fresh) >= 2
    assert fresh[0]["state_type"] == "CRASHED"
    assert the_one_that_completed(fresh)["parameters"]["revision"] == fresh[0]["parameters"]["revision"]
    await until(lambda: events(town, "RunLost"), "no event tells that the run was lost")
    assert await events(town, "Drifted") == []
    await until(lambda: is_ready(town, count), "the fleet does not say that all are in sync")


@pytest.mark.long
async def test_while_the_server_is_away_the_status_says_so_and_then_it_goes_on(town: Town) -> None:
    await town.runs.ended(SYNC)
    await stop_server(town.home)
    await add_route(town.scenario, "third")
    condition = await until_blocked(town.scenario, "PrefectUnreachable")
    assert condition.hint.endswith("reference/errors.md#prefect-unreachable")
    await until(lambda: events(town, "PrefectUnreachable"), "no event tells that Prefect is away")
    back = await start_server(town.home, httpx.URL(town.server.url).port)
    assert back.url == town.server.url
    if not town.worker.lives:
        await town.worker.start()
    await until_all_answer(town.scenario, await size(town), 200, host_of("third"))
    await until_blocked(town.scenario, "")


def the_one_that_completed(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The only run that completed; where a machine is too slow for Prefect's leases, others crashed before it."""
    states = [run["state_type"] for run in runs]
    assert states == ["CRASHED"] * (len(runs) - 1) + ["COMPLETED"]
    return runs[-1]


async def size(town: Town) -> int:
    """How many proxies there are."""
    return len(await proxies_of(town.scenario))


async def events(town: Town, reason: str) -> list[str]:
    """What events of a reason say."""
    found = await town.scenario.kube.list_all(EVENTS, NAMESPACE)
    return [event["message"] for event in found if event["reason"] == reason]


async def is_ready(town: Town, count: int) -> bool:
    """Whether the fleet's status says that so many proxies are up to date and in traffic."""
    counts = (await town.scenario.fleet()).status.counts
    return (counts.total, counts.synced, counts.ready) == (count, count, count)
