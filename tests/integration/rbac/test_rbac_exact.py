"""Everything runs under the chart's roles with RBAC on: nothing is refused, and nothing is granted that is not used.

The chart's own objects run in a lab that audits every request: controller and proxies from its templates, flows and
commands with the token of the worker's account.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from konverge.cli.demo.staging import NAMESPACE, RELEASE, SERVICE
from konverge.kube.client import KubeClient
from konverge.kube.resources import DEPLOYMENTS, INGRESSES, PODS, PROXY_FLEETS, Object
from konverge.lab.supervisor.furnishing import SAMPLE_NAMESPACE, create_all
from konverge.model.migration import MigrationSpec
from konverge.operate.migrations import apply_migration
from konverge.operate.orchestrator import PrefectServer
from konverge.operate.workloads import all_ready, scale, wait_for_deployment
from tests.e2e.living_fleet import (
    Ended,
    add_route,
    answers,
    command,
    describe,
    host_of,
    proxies_of,
    push_by_hand,
    until,
)
from tests.e2e.scenario import FLEET, Scenario, open_scenario
from tests.integration.rbac.accounts import find_helm, render_chart, runs_in_a_lab, write_account
from tests.integration.rbac.rights import CLUSTER, Asked, Right, read_audit, read_rules
from tests.integration.rbac.rights import FLEET as FLEET_ONLY

pytestmark = [
    pytest.mark.lab,
    pytest.mark.prefect,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.long,
    pytest.mark.timeout(1200),
]

PROXIES = 2
CONTROLLER, WORKER = f"{FLEET}-controller", f"{FLEET}-worker"
KEYS = "KONVERGE_TEST_SEALING_KEYS"
READY_SECONDS = 180.0
FORBIDDEN = 403


@dataclass
class Audited:
    """What was granted, and what was asked."""

    objects: list[Object]
    asked: list[Asked]

    def used(self, account: str) -> set[Right]:
        """Rights that an account made use of; a refusal is none."""
        return {item.right for item in self.asked if item.account == account and item.code != FORBIDDEN}

    def refused(self, account: str) -> list[str]:
        """What an account was refused."""
        items = [item for item in self.asked if item.account == account and item.code == FORBIDDEN]
        return sorted({f"{item.right} in {item.namespace or 'all namespaces'}" for item in items})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def audited(prefect_server: PrefectServer, lab_home: Path) -> AsyncIterator[Audited]:
    """Run everything once."""
    key = base64.b64encode(os.urandom(32)).decode()
    objects = [body for body in render_chart(find_helm(), chart_values(prefect_server, key)) if runs_in_a_lab(body)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KONVERGE_PREFECT_HOME", str(lab_home / "rbac-flows"))
        patch.setenv("PREFECT_API_URL", prefect_server.url)
        patch.setenv(KEYS, key)
        async with open_scenario("rbac", lab_home, prefect_server, audit=True) as scenario:
            trail = scenario.lab.settings.files / "apiserver" / "audit.jsonl"
            try:
                await run_everything(scenario, objects, lab_home)
            except BaseException:
                told = Audited(objects, list(read_audit(trail, NAMESPACE)))
                print("refused:", told.refused(CONTROLLER), told.refused(WORKER))
                print(await describe(scenario))
                raise
            yield Audited(objects, list(read_audit(trail, NAMESPACE)))


def chart_values(prefect: PrefectServer, key: str) -> dict[str, Any]:
    """The values of a release that takes over from the legacy one."""
    store = {"keySource": "environment", "keyName": KEYS}
    return {
        "fleet": {"name": FLEET, "historyLimit": 2, "identity": {"store": store}},
        "gateway": {"replicas": PROXIES, "service": {"create": False, "name": SERVICE}},
        "controller": {"replicas": 1, "env": [{"name": KEYS, "value": key}]},
        "prefect": {"apiUrl": prefect.url},
    }


async def run_everything(scenario: Scenario, objects: list[Object], home: Path) -> None:
    """Install, migrate, live, rotate, seal, look, go back."""
    await scenario.given_a_legacy_release(PROXIES)
    await create_all(scenario.kube, objects)
    for name in (f"{FLEET}-controller", f"{FLEET}-gateway"):
        await wait_for_deployment(scenario.kube, name, NAMESPACE, READY_SECONDS, all_ready)
    paths = {
        account: await write_account(scenario.kube, scenario.lab.kubeconfig, account, NAMESPACE, home / account)
        for account in (CONTROLLER, WORKER)
    }
    worker = Worker(scenario, paths[WORKER])
    await migrate(worker)
    await live(worker)
    await look(worker, paths[CONTROLLER])
    await rotate(worker)
    await worker.flow("migration-rollback", migration=RELEASE)


@dataclass
class Worker:
    """Runs flows and commands as the worker's account; ``scenario`` itself is the administrator."""

    scenario: Scenario
    kubeconfig: Path

    @property
    def as_account(self) -> Scenario:
        target = self.scenario.target.model_copy(update={"kubeconfig": str(self.kubeconfig)})
        return replace(self.scenario, target=target)

    async def flow(self, name: str, **parameters: Any) -> Any:
        return (await self.as_account.run(name, **parameters)).value

    async def command(self, *words: str, codes: Iterable[int] = (0,)) -> Ended:
        ended = await command(self.scenario, *words, kubeconfig=self.kubeconfig)
        assert ended.code in codes, f"{words}: {ended.code}\n{ended.out}\n{ended.err}"
        return ended


async def migrate(worker: Worker) -> None:
    async with await KubeClient.connect(worker.kubeconfig) as kube:
        spec = MigrationSpec(fleet=FLEET, release=RELEASE, soak_seconds=0.1, drain_seconds=30.0)
        await apply_migration(kube, RELEASE, NAMESPACE, spec)
    await worker.command("check", "--pre", "--release", RELEASE, codes=(0, 3))
    await worker.flow("legacy-migration", migration=RELEASE)


async def live(worker: Worker) -> None:
    """Changes, a problem, drift, a new proxy, a roll back."""
    scenario = worker.scenario
    for name in ("one", "two", "three"):
        await add_route(scenario, name)
        await routed(scenario, name)
    await add_problem(scenario)
    await push_by_hand(scenario, (await proxies_of(scenario))[0], b'{"_format_version": "3.0"}')
    await routed(scenario, "one")
    await scale(scenario.kube, f"{FLEET}-gateway", NAMESPACE, PROXIES + 1)
    await wait_for_deployment(scenario.kube, f"{FLEET}-gateway", NAMESPACE, READY_SECONDS, all_ready)
    await scenario.then_every_proxy_is_in_sync(PROXIES + 1, READY_SECONDS)
    history = (await worker.command("history", "-o", "json")).json
    await worker.command("rollback", "--to", str(older(history)), "--yes", "-o", "json")
    await worker.command("rollback", "--release", "--yes", "-o", "json")
    await routed(scenario, "three", PROXIES + 1)
    await run_alone(worker)


async def run_alone(worker: Worker) -> None:
    """What Prefect's runs do where the controller leaves it to them: nobody else syncs and onboards here."""
    kube = worker.scenario.kube
    await scale(kube, CONTROLLER, NAMESPACE, 0)
    await wait_for_deployment(kube, CONTROLLER, NAMESPACE, READY_SECONDS, all_ready)
    await add_route(worker.scenario, "four")
    await worker.flow("config-sync")
    await routed(worker.scenario, "four", PROXIES + 1)
    await kube.delete(PODS, (await proxies_of(worker.scenario))[0].name, NAMESPACE, grace=0)
    await until(lambda: onboarded(worker), "no flow takes the new proxy into traffic")
    await worker.flow("drift-audit")
    await scale(kube, CONTROLLER, NAMESPACE, 1)
    await wait_for_deployment(kube, CONTROLLER, NAMESPACE, READY_SECONDS, all_ready)


async def onboarded(worker: Worker) -> bool:
    await worker.flow("proxy-onboarding")
    body = await worker.scenario.kube.get(DEPLOYMENTS, f"{FLEET}-gateway", NAMESPACE)
    return body["status"].get("readyReplicas", 0) == PROXIES + 1


def older(history: Any) -> int:
    numbers = sorted(entry["number"] for entry in history["revisions"])
    return int(numbers[-2])


async def routed(scenario: Scenario, name: str, count: int = PROXIES) -> None:
    async def check() -> bool:
        return list((await answers(scenario, host_of(name))).values()) == [200] * count

    await until(check, f"{name} is not routed by {count} proxies")


async def add_problem(scenario: Scenario) -> None:
    """An Ingress that names a plugin that is not there: an Event in its own namespace says so."""
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "nowhere", "port": {"number": 80}}}}
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": "wrong",
            "namespace": SAMPLE_NAMESPACE,
            "annotations": {"konghq.com/plugins": "nowhere"},
        },
        "spec": {"ingressClassName": "kong", "rules": [{"host": "wrong.lab.test", "http": {"paths": [path]}}]},
    }
    await scenario.kube.apply(INGRESSES, body)

    async def told() -> bool:
        events = await scenario.kube.request("GET", f"/api/v1/namespaces/{SAMPLE_NAMESPACE}/events")
        return any(e["involvedObject"]["name"] == "wrong" for e in json.loads(events)["items"])

    await until(told, "no event tells of the Ingress that leads nowhere")


async def look(worker: Worker, controller: Path) -> None:
    """Every command that only reads, and the page; the test of the chart runs as the controller."""
    words = (("status",), ("drift",), ("history",), ("certs", "status"), ("keys", "status"))
    await asyncio.gather(*(worker.command(*command, codes=(0, 2)) for command in words))
    checks = (await worker.command("check", "-o", "json", codes=(0, 3))).json["checks"]
    assert [f"{c['id']}: {c['message']}" for c in checks if c["state"] == "unknown"] == []
    ended = await command(worker.scenario, "status", kubeconfig=controller)
    assert ended.code in (0, 2), ended.err


async def rotate(worker: Worker) -> None:
    """A new authority by reloads; then everything moves to the sealed store, leaves change by restarts, and back."""
    await worker.flow("cert-rotation", kind="authority")
    await worker.command("keys", "migrate", "--to", "sealed")
    await worker.command("keys", "rewrap")
    patch = {"spec": {"identity": {"reload": "restart"}}}
    await worker.scenario.kube.patch(PROXY_FLEETS, FLEET, patch, NAMESPACE)
    await worker.flow("cert-rotation", kind="leaf")
    await worker.scenario.then_every_proxy_is_in_sync(PROXIES + 1, READY_SECONDS)
    await worker.command("keys", "migrate", "--to", "secret")


async def test_nothing_is_refused(audited: Audited) -> None:
    assert {account: audited.refused(account) for account in (CONTROLLER, WORKER)} == {CONTROLLER: [], WORKER: []}


APPLIED = "server-side apply of an object that is not there needs it, on a real API server"
STREAM = "a WebSocket is opened by a GET; API servers ask for create too since 1.35"
MISSED = "the controller reloads a proxy that missed a rotation; tests/e2e/test_rotation.py does it under these rules"
MEMORY = "the last valid versions of sources that are right again are dropped"
EXCUSED: dict[Right, str] = {
    Right("konverge.dev", "proxyfleets", "create", FLEET_ONLY): APPLIED,
    Right("konverge.dev", "fleetmigrations", "create", FLEET_ONLY): APPLIED,
    Right("", "pods/exec", "create", FLEET_ONLY): STREAM,
    Right("", "pods/exec", "get", FLEET_ONLY): MISSED,
    Right("", "pods", "get", FLEET_ONLY): MISSED,
    Right("", "pods/portforward", "create", FLEET_ONLY): STREAM,
    Right("", "secrets", "delete", FLEET_ONLY): MEMORY,
    Right("konverge.dev", "proxyinstances", "get", FLEET_ONLY): "another process made it in between",
    Right("konverge.dev", "sealedidentities", "create", FLEET_ONLY): "a fleet whose store is sealed from the start",
    Right(
        "policy", "poddisruptionbudgets", "get", FLEET_ONLY
    ): "an emergency asks how many proxies may be away at once",
    Right("", "events", "patch", CLUSTER): "what happens again to the same object is counted",
}
"""Rights that a run does not reach, each with what it is for."""

ROLES = {
    ("ClusterRole", f"konverge-{NAMESPACE}-{FLEET}"): CONTROLLER,
    ("Role", f"{FLEET}-controller"): CONTROLLER,
    ("ClusterRole", f"konverge-{NAMESPACE}-{FLEET}-worker"): WORKER,
    ("Role", f"{FLEET}-worker"): WORKER,
}
"""Whose requests have to use a role up. The worker has the rights of the controller too."""


async def test_every_role_is_looked_at(audited: Audited) -> None:
    found = {(body["kind"], body["metadata"]["name"]) for body in audited.objects if "rules" in body}
    assert found == set(ROLES)


@pytest.mark.parametrize("role", sorted(ROLES), ids=lambda role: f"{role[0]}-{role[1]}")
async def test_nothing_is_granted_that_is_not_used(audited: Audited, role: tuple[str, str]) -> None:
    (body,) = [body for body in audited.objects if (body["kind"], body["metadata"]["name"]) == role]
    granted, used = read_rules(body), audited.used(ROLES[role])
    assert sorted(map(str, granted - used - set(EXCUSED))) == []


async def test_nothing_is_excused_in_vain(audited: Audited) -> None:
    granted = {right for body in audited.objects if "rules" in body for right in read_rules(body)}
    assert sorted(map(str, set(EXCUSED) - granted)) == []
