"""A migration whose process is killed at any moment, again and again, ends where it should; no request is lost."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import orjson
import pytest
import pytest_asyncio

from konverge.cli.demo.staging import NAMESPACE, RELEASE
from konverge.errors import KonvergeError
from konverge.kube.resources import (
    CONFIG_REVISIONS,
    DEPLOYMENTS,
    FLEET_MIGRATIONS,
    INGRESSES,
    PROXY_FLEETS,
    SECRETS,
)
from konverge.lab.legacy.release import selector_labels
from konverge.model.migration import MigrationPhase, MigrationSpec, Step, StepState
from konverge.operate.migrations import apply_migration, load_migration
from konverge.operate.orchestrator import PrefectServer, client_environment
from tests.e2e.scenario import FLEET, Scenario, open_scenario

pytestmark = [
    pytest.mark.lab,
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

PROXIES = 3
SEED = int(os.environ.get("KONVERGE_TEST_SEED") or random.SystemRandom().randrange(2**32))
EARLY = [(Step.DEPLOY, StepState.RUNNING), (Step.SYNC, StepState.RUNNING), (Step.VERIFY, StepState.DONE)]
LATE = [
    (Step.SHIFT, StepState.RUNNING),
    (Step.SHIFT, StepState.RUNNING),
    (Step.SHIFT, StepState.DONE),
    (Step.FINISH, StepState.RUNNING),
]
LATER = list(StepState)
"""States in the order in which a step runs through them."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario(prefect_server: PrefectServer, lab_home: Path) -> AsyncIterator[Scenario]:
    async with open_scenario("crash", lab_home, prefect_server) as opened:
        await opened.given_a_legacy_release(PROXIES)
        yield opened


@pytest.fixture
def dice() -> random.Random:
    print(f"KONVERGE_TEST_SEED={SEED}")
    return random.Random(SEED)


class FlowProcess:
    """The process of a flow, which can be killed as a machine that loses power would."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, scenario: Scenario, flow: str) -> FlowProcess:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "flows.run", flow),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=client_environment(scenario.prefect),
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(orjson.dumps({"target": scenario.target.to_json(), "migration": RELEASE}))
        process.stdin.close()
        return cls(process)

    async def kill(self) -> int:
        """SIGKILL to everything it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return await self.process.wait()

    async def begun(self) -> None:
        """Wait until the flow run has begun: the first line says so."""
        assert self.process.stdout is not None
        await asyncio.wait_for(self.process.stdout.readline(), 60)


async def begin(scenario: Scenario) -> None:
    """Create a new FleetMigration; one that has ended is deleted first."""
    await scenario.kube.delete(FLEET_MIGRATIONS, RELEASE, NAMESPACE)
    spec = MigrationSpec(fleet=FLEET, release=RELEASE, soak_seconds=0.3, drain_seconds=30.0)
    await apply_migration(scenario.kube, RELEASE, NAMESPACE, spec)


async def until_reached(scenario: Scenario, flow: FlowProcess, step: Step, state: StepState) -> None:
    """Wait until the journal shows a step in a state or beyond it; there is no event for it across processes."""
    async with asyncio.timeout(60):
        while flow.process.returncode is None:
            with suppress(KonvergeError):
                found = (await load_migration(scenario.kube, RELEASE, NAMESPACE)).status.record(step).state
                if LATER.index(found) >= LATER.index(state):
                    return
            await asyncio.sleep(0.02)
    pytest.fail(f"the flow ended before {step.value} was {state.value}")


async def kill_at(scenario: Scenario, flow: str, step: Step, state: StepState, delay: float) -> None:
    """Start the flow, and kill it a moment after a step has reached a state."""
    running = await FlowProcess.start(scenario, flow)
    try:
        await until_reached(scenario, running, step, state)
        await asyncio.sleep(delay)
    finally:
        assert await running.kill() == -signal.SIGKILL


async def then_all_is_done_once(scenario: Scenario) -> None:
    """The journal is complete, the traffic is with the fleet, and nothing exists twice."""
    migration = await load_migration(scenario.kube, RELEASE, NAMESPACE)
    assert migration.status.phase is MigrationPhase.COMPLETED
    assert await scenario.journal() == {step.value: "Done" for step in Step}
    await scenario.then_every_proxy_is_in_sync(PROXIES)
    fleet = await scenario.fleet()
    await scenario.then_the_service_selects(fleet.labels)
    assert await scenario.legacy_replicas() == 0
    assert await scenario.controllers() == 1
    assert len(await scenario.pods(fleet.labels)) == PROXIES
    names = {d["metadata"]["name"] for d in await scenario.kube.list_all(DEPLOYMENTS, NAMESPACE)}
    assert names == {f"{RELEASE}-kong", fleet.deployment, fleet.controller}
    assert len(await scenario.kube.list_all(PROXY_FLEETS)) == len(await scenario.kube.list_all(FLEET_MIGRATIONS)) == 1
    await then_revisions_are_whole(scenario)


async def then_revisions_are_whole(scenario: Scenario) -> None:
    """No number and no bytes exist twice in a row, and no bytes without their revision."""
    specs = [r["spec"] for r in await scenario.kube.list_all(CONFIG_REVISIONS, NAMESPACE)]
    specs.sort(key=lambda spec: spec["number"])
    assert [spec["number"] for spec in specs] == list(range(specs[0]["number"], specs[-1]["number"] + 1))
    hashes = [spec["hash"] for spec in specs]
    assert all(one != other for one, other in zip(hashes, hashes[1:], strict=False)), hashes
    labels = f"konverge.dev/fleet={FLEET},konverge.dev/revision"
    chunks = await scenario.kube.list_all(SECRETS, NAMESPACE, labels=labels)
    stored = {chunk["metadata"]["labels"]["konverge.dev/revision"] for chunk in chunks}
    assert stored == {str(spec["number"]) for spec in specs}


async def test_killed_in_every_early_step_it_goes_on(scenario: Scenario, dice: random.Random) -> None:
    await begin(scenario)
    async with scenario.under_load():
        for step, state in EARLY:
            await kill_at(scenario, "legacy-migration", step, state, dice.uniform(0.0, 0.4))
        await scenario.run("legacy-migration", migration=RELEASE)
    scenario.then_no_request_failed()
    await then_all_is_done_once(scenario)


async def test_a_killed_rollback_goes_on_and_so_does_a_migration_after_it(
    scenario: Scenario, dice: random.Random
) -> None:
    async with scenario.under_load():
        running = await FlowProcess.start(scenario, "migration-rollback")
        await running.begun()
        await asyncio.sleep(dice.uniform(0.0, 2.5))
        await running.kill()
        if dice.random() < 0.5:
            await scenario.run("legacy-migration", migration=RELEASE)
            await then_all_is_done_once(scenario)
        await scenario.when_rolled_back()
    scenario.then_no_request_failed()
    await scenario.then_the_service_selects(selector_labels(RELEASE))
    assert await scenario.legacy_replicas() == PROXIES


async def test_killed_while_the_traffic_moves_it_goes_on(scenario: Scenario, dice: random.Random) -> None:
    await begin(scenario)
    async with scenario.under_load():
        for step, state in LATE:
            await kill_at(scenario, "legacy-migration", step, state, dice.uniform(0.0, 0.8))
        await scenario.run("legacy-migration", migration=RELEASE)
    scenario.then_no_request_failed()
    await then_all_is_done_once(scenario)


async def test_a_change_in_the_middle_of_the_shift_is_no_reason_to_stop(scenario: Scenario) -> None:
    await scenario.when_rolled_back()
    await begin(scenario)
    async with scenario.under_load():
        running = await FlowProcess.start(scenario, "legacy-migration")
        await until_reached(scenario, running, Step.SHIFT, StepState.RUNNING)
        await scenario.kube.create(INGRESSES, late_ingress())
        assert await asyncio.wait_for(running.process.wait(), 120) == 0
    scenario.then_no_request_failed()
    await then_all_is_done_once(scenario)


def late_ingress() -> dict[str, object]:
    backend = {"service": {"name": "shop", "port": {"number": 80}}}
    paths = [{"path": "/mid", "pathType": "Prefix", "backend": backend}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "mid", "namespace": "sample"},
        "spec": {"ingressClassName": "kong", "rules": [{"host": "mid.lab.test", "http": {"paths": paths}}]},
    }
