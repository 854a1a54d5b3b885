"""What must be refused or given back: a release that limps, proxies that run something else, the naive way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio
import yaml

from konverge.cli.demo.naive import migrate_naively
from konverge.cli.demo.staging import NAMESPACE, RELEASE, SERVICE, Stage
from konverge.cli.migrating import _migrate
from konverge.cli.output import REFUSED, exit_code_of
from konverge.decide.legacy import ADMIN_URL_PORT
from konverge.errors import CheckRefused, VerificationFailed
from konverge.kube.resources import FLEET_MIGRATIONS, INGRESSES, PODS, PROXY_FLEETS
from konverge.kube.streaming import PortForward
from konverge.lab.legacy.release import selector_labels
from konverge.lab.legacy.sample import sample_load
from konverge.model.migration import MigrationPhase, MigrationSpec, Step, StepState
from konverge.operate.comparing import loopback_context
from konverge.operate.migrations import load_migration
from konverge.operate.orchestrator import PrefectServer
from konverge.operate.workloads import all_ready, is_ready, list_pods, scale, wait_for_deployment
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
DEPLOYMENT = f"{RELEASE}-kong"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario(prefect_server: PrefectServer, lab_home: Path) -> AsyncIterator[Scenario]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KONVERGE_PREFECT_HOME", str(lab_home / "refuse-flows"))
        async with open_scenario("refuse", lab_home, prefect_server) as opened:
            await opened.given_a_legacy_release(PROXIES)
            yield opened


async def legacy_is_whole(scenario: Scenario, replicas: int = PROXIES) -> None:
    await scale(scenario.kube, DEPLOYMENT, NAMESPACE, replicas)
    # The Deployment's status lags behind: right after a pod was deleted it still says that all are ready.
    async with asyncio.timeout(90):
        while True:
            pods = await list_pods(scenario.kube, NAMESPACE, selector_labels(RELEASE))
            if len(pods) == replicas and all(map(is_ready, pods)):
                break
            await asyncio.sleep(0.2)
    await wait_for_deployment(scenario.kube, DEPLOYMENT, NAMESPACE, 90, all_ready)


async def test_a_release_that_limps_is_refused_before_anything_is_touched(scenario: Scenario) -> None:
    # given
    await scale(scenario.kube, DEPLOYMENT, NAMESPACE, PROXIES + 1)
    # when
    with pytest.raises(CheckRefused) as caught:
        await _migrate(scenario.target, MigrationSpec(fleet=FLEET, release=RELEASE), live=False)
    # then
    assert caught.value.reason == "LegacyNotReady"
    assert exit_code_of(caught.value) == REFUSED
    assert await scenario.kube.list_all(FLEET_MIGRATIONS) == []
    assert await scenario.kube.list_all(PROXY_FLEETS) == []
    await legacy_is_whole(scenario)


async def add_route_by_hand(scenario: Scenario, pod: str) -> None:
    """Post a configuration with one more route to one legacy proxy, as somebody with a port-forward can."""
    async with (
        PortForward(scenario.kube, pod, NAMESPACE, ADMIN_URL_PORT) as forward,
        httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{forward.port}", verify=loopback_context(), timeout=20, trust_env=False
        ) as admin,
    ):
        text = (await admin.get("/config")).raise_for_status().json()["config"]
        document: dict[str, Any] = yaml.safe_load(text)
        for entity in (item for items in document.values() if isinstance(items, list) for item in items):
            for stamp in ("created_at", "updated_at"):  # fractions come out that do not go in
                entity.pop(stamp, None)
        service = document["services"][0]
        route = {"name": "by-hand", "paths": ["/by-hand"], "service": service.get("id", service["name"])}
        document.setdefault("routes", []).append(route)
        answer = await admin.post(
            "/config", content=orjson.dumps(document), headers={"Content-Type": "application/yaml"}
        )
        assert answer.status_code == 201, answer.text


async def test_a_proxy_that_runs_something_else_stops_the_migration(scenario: Scenario) -> None:
    # given
    victim = (await scenario.pods(selector_labels(RELEASE)))[1]
    await add_route_by_hand(scenario, victim)
    await begin(scenario)
    # when
    async with scenario.under_load():
        with pytest.raises(VerificationFailed) as caught:
            await scenario.run("legacy-migration", migration=RELEASE)
    # then
    assert caught.value.reason == "ParityBroken"
    assert victim in caught.value.message
    status = (await load_migration(scenario.kube, RELEASE, NAMESPACE)).status
    assert (status.phase, status.reason) == (MigrationPhase.ROLLED_BACK, "ParityBroken")
    assert status.record(Step.VERIFY).state is StepState.FAILED
    assert status.record(Step.SHIFT).state is StepState.PENDING
    scenario.then_no_request_failed()
    await scenario.then_the_service_selects(selector_labels(RELEASE))
    assert await scenario.legacy_replicas() == PROXIES
    await scenario.kube.delete(PODS, victim, NAMESPACE)


async def test_a_change_in_the_middle_of_the_shift_is_no_reason_to_stop(scenario: Scenario) -> None:
    await legacy_is_whole(scenario)
    await begin(scenario)
    async with scenario.under_load():
        running = await FlowProcess.start(scenario, "legacy-migration")
        await until_reached(scenario, running, Step.SHIFT, StepState.RUNNING)
        await scenario.kube.create(INGRESSES, late_ingress())
        code = await asyncio.wait_for(running.process.wait(), 120)
        assert code == 0, (await load_migration(scenario.kube, RELEASE, NAMESPACE)).status
    scenario.then_no_request_failed()
    assert set((await scenario.journal()).values()) == {"Done"}
    await scenario.then_every_proxy_is_in_sync(PROXIES)
    await scenario.then_the_service_selects((await scenario.fleet()).labels)


def late_ingress() -> dict[str, object]:
    backend = {"service": {"name": "shop", "port": {"number": 80}}}
    paths = [{"path": "/mid", "pathType": "Prefix", "backend": backend}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "mid", "namespace": "sample"},
        "spec": {"ingressClassName": "kong", "rules": [{"host": "mid.lab.test", "http": {"paths": paths}}]},
    }


async def test_the_naive_way_loses_requests(scenario: Scenario) -> None:
    # given
    await scenario.when_rolled_back()
    host, port = await scenario.lab.address_of(SERVICE, NAMESPACE)
    plan = sample_load(f"http://{host}:{port}")
    stage = Stage(str(scenario.lab.kubeconfig), scenario.kube, None, plan, scenario.idle_watches)
    # when
    async with scenario.under_load():
        await migrate_naively(stage, "naive")
    # then
    assert scenario.reports[-1].requests.failed > 0
