"""The main job: a legacy release becomes a fleet, lives as one, and can go back; under load, no request is lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from konverge.checks.all import select_checks
from konverge.checks.gathering import Question, gather_scene
from konverge.checks.registry import State, run_checks
from konverge.cli.demo.staging import NAMESPACE, RELEASE
from konverge.kube.resources import INGRESSES, PODS
from konverge.lab.legacy.release import selector_labels
from konverge.model.rotation import RotationKind
from konverge.operate.identities import load_keys
from konverge.operate.orchestrator import PrefectServer
from tests.e2e.scenario import Scenario, open_scenario

pytestmark = [
    pytest.mark.lab,
    pytest.mark.prefect,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]

PROXIES = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario(prefect_server: PrefectServer, lab_home: Path) -> AsyncIterator[Scenario]:
    async with open_scenario("story", lab_home, prefect_server) as opened:
        await opened.given_a_legacy_release(PROXIES)
        yield opened


async def test_a_legacy_release_becomes_a_fleet(scenario: Scenario) -> None:
    # given
    controllers, watches = await scenario.controllers(), await scenario.watches()
    assert controllers == PROXIES
    # when
    async with scenario.under_load():
        await scenario.when_migrated()
    # then
    scenario.then_no_request_failed(at_least=3000)
    await scenario.then_every_proxy_is_in_sync(PROXIES)
    fleet = await scenario.fleet()
    await scenario.then_the_service_selects(fleet.labels)
    assert await scenario.legacy_replicas() == 0
    assert await scenario.controllers() == 1
    assert await scenario.watches() < watches
    assert set((await scenario.journal()).values()) == {"Done"}


async def test_no_check_stands_in_the_way_of_a_running_fleet(
    scenario: Scenario, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.url)
    fleet = await scenario.fleet()
    # when
    scene = await gather_scene(scenario.kube, Question(NAMESPACE, fleet.name))
    results = {result.id: result for result in run_checks(select_checks(before=False), scene)}
    # then
    assert [f"{r.id}: {r.message}" for r in results.values() if r.refuses] == []
    assert [f"{r.id}: {r.message}" for r in results.values() if r.state is State.UNKNOWN] == []
    for name in ("proxies-handshake", "kong-body-limit", "prefect-reachable", "traffic-endpoints", "revision-good"):
        assert results[name].state is State.PASSED, results[name].message
    # no worker was started here
    assert results["prefect-worker"].state is State.FAILED


async def test_new_proxies_are_onboarded_before_they_get_traffic(scenario: Scenario) -> None:
    # when
    async with scenario.under_load():
        await scenario.when_scaled(PROXIES + 2)
        await scenario.then_every_proxy_is_in_sync(PROXIES + 2)
        await scenario.when_scaled(PROXIES)
    # then
    scenario.then_no_request_failed()
    await scenario.then_every_proxy_is_in_sync(PROXIES)


async def test_a_change_reaches_every_proxy(scenario: Scenario) -> None:
    # given
    before = (await scenario.fleet()).status.current_revision
    ingress = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "late", "namespace": "sample"},
        "spec": {
            "ingressClassName": "kong",
            "rules": [{"host": "late.lab.test", "http": {"paths": [LATE_PATH]}}],
        },
    }
    # when
    async with scenario.under_load():
        await scenario.kube.create(INGRESSES, ingress)
        fleet = await scenario.fleet()
        while fleet.status.last_good_revision <= before:
            fleet = await scenario.fleet()
    # then
    scenario.then_no_request_failed()
    await scenario.then_every_proxy_is_in_sync(PROXIES)


LATE_PATH = {
    "path": "/late",
    "pathType": "Prefix",
    "backend": {"service": {"name": "shop", "port": {"number": 80}}},
}


async def test_certificates_are_rotated_without_a_failed_call(scenario: Scenario) -> None:
    """The authority, and the leaves with it; the other kinds of rotation are in test_rotation.py."""
    # given
    fleet = await scenario.fleet()
    before = await load_keys(scenario.kube, fleet)
    # when
    async with scenario.under_load():
        timeline = await scenario.when_rotated(RotationKind.AUTHORITY)
    # then
    scenario.then_nothing_failed_but_the_race(PROXIES * 3)
    after = await load_keys(scenario.kube, fleet)
    assert after.proxies.files.identity.certificate.serial != before.proxies.files.identity.certificate.serial
    assert after.controller.files.identity.certificate.serial != before.controller.files.identity.certificate.serial
    assert after.authorities.successor is None
    assert after.authorities.current.certificate.fingerprint != before.authorities.current.certificate.fingerprint
    assert len(timeline) == 5
    await scenario.then_every_proxy_is_in_sync(PROXIES)


async def test_a_restarted_proxy_is_configured_again(scenario: Scenario) -> None:
    # given
    fleet = await scenario.fleet()
    victim = (await scenario.pods(fleet.labels))[0]
    # when
    async with scenario.under_load():
        await scenario.kube.delete(PODS, victim, NAMESPACE)
        await scenario.when_scaled(PROXIES)
    # then
    scenario.then_no_request_failed()
    instances = await scenario.then_every_proxy_is_in_sync(PROXIES)
    assert victim not in instances


async def test_the_traffic_goes_back(scenario: Scenario) -> None:
    # when
    async with scenario.under_load():
        await scenario.when_rolled_back()
    # then
    scenario.then_no_request_failed()
    await scenario.then_the_service_selects(selector_labels(RELEASE))
    assert await scenario.legacy_replicas() == PROXIES
