"""A sync whose process is killed after any step goes on where it was; no proxy ever holds anything but old or new."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio

from konverge.cli.demo.staging import NAMESPACE, SERVICE, install_crds
from konverge.cli.running import flow_log
from konverge.decide.objects import build_fleet_objects
from konverge.errors import KonvergeError
from konverge.kube.resources import CONFIG_REVISIONS, NAMESPACES, SECRETS
from konverge.kube.resources import SOURCES as KINDS
from konverge.lab.legacy.sample import SAMPLE_KEY
from konverge.lab.supervisor.furnishing import SAMPLE_NAMESPACE, furnish
from konverge.model.fleet import FleetSpec, Rollout
from konverge.operate.connecting import open_gateways
from konverge.operate.fleets import apply_fleet
from konverge.operate.identities import ensure_identity, load_keys
from konverge.operate.onboarding import onboard_proxies
from konverge.operate.orchestrator import PrefectServer
from konverge.operate.recording import summarise_fleet
from konverge.operate.rendering import compile_revision, gather_sources
from konverge.operate.revisions import load_revision, store_revision
from konverge.operate.workloads import all_ready, apply_objects, wait_for_deployment
from tests.e2e.killing import FlowProcess
from tests.e2e.living_fleet import add_route, host_of, proxies_of, until
from tests.e2e.scenario import FLEET, Scenario, open_scenario
from tests.e2e.test_crash import find_records

pytestmark = [
    pytest.mark.lab,
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(400),
]

PROXIES = 3
SEED = int(os.environ.get("KONVERGE_TEST_SEED") or random.SystemRandom().randrange(2**32))
HIDDEN = "do-not-tell-anybody-4711"
PLUGINS = next(resource for resource in KINDS if resource.kind == "KongPlugin")
INGRESSES = next(resource for resource in KINDS if resource.kind == "Ingress")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario(prefect_server: PrefectServer, lab_home: Path) -> AsyncIterator[Scenario]:
    """A fleet without a controller: only the flow pushes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KONVERGE_PREFECT_HOME", str(lab_home / "sync-flows"))
        async with open_scenario("sync", lab_home, prefect_server) as opened:
            await given_a_fleet_alone(opened)
            yield opened


async def given_a_fleet_alone(scenario: Scenario) -> None:
    kube = scenario.kube
    await furnish(kube, legacy=0, sample=True)
    await install_crds(kube)
    await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    rollout = Rollout(canary=1, wave_size=1, growth=1, soak_seconds=0.2)
    spec = FleetSpec(proxy_service=SERVICE, replicas=PROXIES, rollout=rollout)
    fleet = await apply_fleet(kube, FLEET, NAMESPACE, spec)
    await ensure_identity(kube, fleet)
    await apply_objects(kube, build_fleet_objects(fleet))

    async def found() -> bool:
        return len(await proxies_of(scenario)) == PROXIES and len(await loaded(scenario)) == PROXIES

    await until(found, "the proxies do not answer")
    await scenario.lab.wait_ready(SAMPLE_NAMESPACE, timeout=90)
    # The endpoints of the sample are complete now, so that what follows changes one thing at a time.
    draft, _ = compile_revision(fleet, await gather_sources(kube))
    revision = await store_revision(kube, fleet, draft, author="test")
    async with open_gateways(kube, fleet) as gateways:
        outcomes = await onboard_proxies(kube, fleet, gateways, revision, await proxies_of(scenario))
    assert all(outcome.ok for outcome in outcomes), outcomes
    await summarise_fleet(kube, fleet, revision)
    await wait_for_deployment(kube, fleet.deployment, NAMESPACE, 90, all_ready)


async def loaded(scenario: Scenario) -> list[str]:
    """What the proxies that answer have loaded."""
    fleet = await scenario.fleet()
    hashes = []
    async with open_gateways(scenario.kube, fleet) as gateways:
        for proxy in await proxies_of(scenario):
            with suppress(KonvergeError):
                hashes.append(await gateways.reach(proxy).loaded_hash())
    return hashes


async def all_answer(scenario: Scenario, status: int, host: str) -> bool:
    """Whether every proxy answers a request for a host with a status."""
    found = []
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        for proxy in await proxies_of(scenario):
            answer = await client.get(f"http://{proxy.ip}:{proxy.proxy_port}/", headers={"Host": host})
            found.append(answer.status_code)
    return found == [status] * PROXIES


async def rendered_hash(scenario: Scenario) -> str:
    """The hash of what the sources come to now: known before anything is pushed."""
    draft, _ = compile_revision(await scenario.fleet(), await gather_sources(scenario.kube))
    return draft.hash


@asynccontextmanager
async def watching(scenario: Scenario, allowed: set[str]) -> AsyncIterator[None]:
    """Look at every proxy's hash all the time; whatever is neither old nor new fails the test."""
    seen: dict[str, int] = {}
    stopping = asyncio.Event()

    async def watch() -> None:
        async with open_gateways(scenario.kube, await scenario.fleet()) as gateways:
            proxies = await proxies_of(scenario)
            while not stopping.is_set():
                for proxy in proxies:
                    with suppress(KonvergeError):
                        found = await gateways.reach(proxy).loaded_hash()
                        seen[found] = seen.get(found, 0) + 1
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), 0.05)

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        stopping.set()
        await task
    assert set(seen) <= allowed, f"KONVERGE_TEST_SEED={SEED}: {seen}"
    assert sum(seen.values()) > 20


async def kill_after(scenario: Scenario, waves: int, delay: float) -> bool:
    """Start a sync and kill it a moment after so many waves; False where it was faster."""
    running = await FlowProcess.start(scenario, "config-sync", author="test")
    try:
        await running.begun()
        assert running.process.stdout is not None
        while waves:
            line = await asyncio.wait_for(running.process.stdout.readline(), 60)
            if not line:
                return False
            waves -= b'"progress"' in line
        await asyncio.sleep(delay)
    finally:
        code = await running.kill()
    return code == -signal.SIGKILL


async def then_the_end_is_the_same(scenario: Scenario, wanted: str, revisions: int) -> None:
    """Everybody runs the new revision, which exists once, and the fleet says so."""
    assert await loaded(scenario) == [wanted] * PROXIES
    fleet = await scenario.fleet()
    assert fleet.status.current_hash == fleet.status.last_good_hash == wanted
    assert fleet.status.counts.synced == PROXIES
    specs = [r["spec"] for r in await scenario.kube.list_all(CONFIG_REVISIONS, NAMESPACE)]
    assert sorted(spec["number"] for spec in specs) == list(range(1, len(specs) + 1))
    assert [spec["hash"] for spec in specs].count(wanted) == 1
    assert len(specs) == revisions


async def count_revisions(scenario: Scenario) -> int:
    return len(await scenario.kube.list_all(CONFIG_REVISIONS, NAMESPACE))


async def test_killed_after_every_step_it_ends_as_if_undisturbed(scenario: Scenario) -> None:
    print(f"KONVERGE_TEST_SEED={SEED}")
    dice = random.Random(SEED)
    old, before = (await scenario.fleet()).status.current_hash, await count_revisions(scenario)
    await add_route(scenario, "first")
    new = await rendered_hash(scenario)
    assert new != old
    async with watching(scenario, {old, new}):
        for waves in range(PROXIES + 1):
            await kill_after(scenario, waves, dice.uniform(0, 1.5) if waves == 0 else dice.uniform(0, 0.3))
        counts = (await scenario.run("config-sync", author="test")).value
    assert counts["verdict"] == "Completed"
    await then_the_end_is_the_same(scenario, new, before + 1)
    assert await all_answer(scenario, 200, host_of("first"))


async def test_what_is_refused_is_left_out_and_the_rest_goes_live(scenario: Scenario) -> None:
    body = {
        "apiVersion": "configuration.konghq.com/v1",
        "kind": "KongPlugin",
        "metadata": {"name": "bad", "namespace": SAMPLE_NAMESPACE},
        "plugin": "request-termination",
        "config": {"status_code": 9999, "message": HIDDEN},
    }
    await scenario.kube.create(PLUGINS, body)
    await add_route(scenario, "broken")
    annotation = {"metadata": {"annotations": {"konghq.com/plugins": "bad"}}}
    await scenario.kube.patch(INGRESSES, "broken", annotation, SAMPLE_NAMESPACE)
    await add_route(scenario, "third")
    counts: Any = (await scenario.run("config-sync", author="test")).value
    assert (counts["verdict"], counts["synced"]) == ("Completed", PROXIES)
    assert await all_answer(scenario, 200, host_of("third"))
    assert await all_answer(scenario, 404, host_of("broken"))
    assert await all_answer(scenario, 200, host_of("first"))


async def test_no_secret_and_no_configuration_is_in_any_record_or_log(scenario: Scenario) -> None:
    fleet = await scenario.fleet()
    keys = await load_keys(scenario.kube, fleet)
    secrets = [i.key.to_pem().splitlines()[1] for i in (keys.controller.files.identity, keys.proxies.files.identity)]
    for secret in await scenario.kube.list_all(SECRETS):
        key = base64.b64decode((secret.get("data") or {}).get("tls.key", ""))
        secrets += key.splitlines()[1:2]
    revision = await load_revision(scenario.kube, fleet, fleet.status.current_revision)
    assert SAMPLE_KEY.encode() in revision.content
    pieces = [revision.content[start : start + 80] for start in range(0, len(revision.content) - 80, 2000)]
    route = orjson.dumps({"hosts": [host_of("first")]})[1:-1]
    secrets += [SAMPLE_KEY.encode(), HIDDEN.encode(), b"PRIVATE KEY-----", route, *pieces]
    flows = [path for path in flow_log().parent.rglob("*") if path.is_file()]
    assert flow_log() in flows
    logs = [p for p in scenario.lab.settings.files.rglob("*.log") if p.name != "store.log"]
    # store.log is the API server's database, where the objects themselves are.
    places = [*flows, *find_records(scenario.prefect), *logs]
    assert len([place for place in places if place.stat().st_size > 0]) > 8
    found = [f"{p.name}: {secret[:12]!r}" for p in places for secret in secrets if secret in p.read_bytes()]
    assert found == []
