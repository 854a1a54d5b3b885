"""A migration whose process is killed at any moment, again and again, ends where it should; no request is lost."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from konverge.cli.demo.staging import NAMESPACE, RELEASE
from konverge.cli.running import flow_log
from konverge.kube.resources import CONFIG_REVISIONS, DEPLOYMENTS, FLEET_MIGRATIONS, PROXY_FLEETS, SECRETS
from konverge.lab.legacy.release import selector_labels
from konverge.lab.legacy.sample import SAMPLE_KEY
from konverge.model.migration import MigrationPhase, Step, StepState
from konverge.operate.identities import load_keys
from konverge.operate.migrations import load_migration
from konverge.operate.orchestrator import PrefectServer
from konverge.operate.revisions import load_revision
from tests.e2e.killing import FlowProcess, begin, until_reached
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
EARLY = [(Step.DEPLOY, StepState.RUNNING), (Step.SYNC, StepState.RUNNING)]
LATE = [
    (Step.SHIFT, StepState.RUNNING),
    (Step.SHIFT, StepState.RUNNING),
    (Step.SHIFT, StepState.DONE),
    (Step.FINISH, StepState.RUNNING),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario(prefect_server: PrefectServer, lab_home: Path) -> AsyncIterator[Scenario]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KONVERGE_PREFECT_HOME", str(lab_home / "crash-flows"))
        async with open_scenario("crash", lab_home, prefect_server) as opened:
            await opened.given_a_legacy_release(PROXIES)
            yield opened


@pytest.fixture
def dice() -> random.Random:
    print(f"KONVERGE_TEST_SEED={SEED}")
    return random.Random(SEED)


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
    assert all(one != other for one, other in itertools.pairwise(hashes)), hashes
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


async def test_no_secret_is_in_any_record_or_log(scenario: Scenario) -> None:
    fleet = await scenario.fleet()
    keys = await load_keys(scenario.kube, fleet)
    identities = (keys.authorities.current.identity, keys.controller.files.identity, keys.proxies.files.identity)
    secrets = [identity.key.to_pem().splitlines()[1] for identity in identities]
    for secret in await scenario.kube.list_all(SECRETS):
        key = base64.b64decode((secret.get("data") or {}).get("tls.key", ""))
        secrets += key.splitlines()[1:2]
    revision = await load_revision(scenario.kube, fleet, fleet.status.current_revision)
    assert SAMPLE_KEY.encode() in revision.content
    middle = len(revision.content) // 2
    secrets += [SAMPLE_KEY.encode(), b"PRIVATE KEY-----", revision.content[middle : middle + 80]]
    flows = [path for path in flow_log().parent.rglob("*") if path.is_file()]
    assert flow_log() in flows
    places = [*flows, *find_records(scenario.prefect), *scenario.lab.settings.files.rglob("*.log")]
    assert len([place for place in places if place.stat().st_size > 0]) > 8
    found = [
        f"{place.name}: {secret[:12]!r}" for place in places for secret in secrets if secret in place.read_bytes()
    ]
    assert found == []


def find_records(server: PrefectServer) -> list[Path]:
    """The database and the log of a Prefect server, by the environment of its process."""
    entries = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
    home = next(e.removeprefix(b"PREFECT_HOME=").decode() for e in entries if e.startswith(b"PREFECT_HOME="))
    records = [path for path in Path(home).rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in records)
    return records
