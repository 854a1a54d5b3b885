"""A living fleet: rolled back it stays so, what was posted by hand is found, and the last good revision survives."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from konverge.cli.demo.staging import NAMESPACE
from konverge.kube.resources import DEPLOYMENTS, PROXY_FLEETS
from konverge.kube.resources import SOURCES as KINDS
from konverge.lab.legacy.sample import API, SAMPLE_KEY, SHOP
from konverge.lab.supervisor.furnishing import SAMPLE_NAMESPACE
from konverge.operate.orchestrator import PrefectServer
from konverge.operate.revisions import load_revision
from konverge.operate.workloads import scale
from tests.e2e.living_fleet import (
    add_route,
    answers,
    command,
    controller_labels,
    delete_pods,
    describe,
    given_a_living_fleet,
    hashes_of,
    host_of,
    kill_containers,
    pod_names,
    proxies_of,
    push_by_hand,
    until,
    until_all_answer,
    until_balanced,
)
from tests.e2e.scenario import Scenario, open_scenario

pytestmark = [
    pytest.mark.lab,
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(900),
]

PROXIES = 3
PLUGINS = next(resource for resource in KINDS if resource.kind == "KongPlugin")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario(prefect_server: PrefectServer, lab_home: Path) -> AsyncIterator[Scenario]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KONVERGE_PREFECT_HOME", str(lab_home / "revision-flows"))
        async with open_scenario("revisions", lab_home, prefect_server) as opened:
            await given_a_living_fleet(opened, PROXIES)
            yield opened


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def released(scenario: Scenario) -> AsyncIterator[None]:
    """No test leaves a pin, a policy or a proxy too many to the next one."""
    yield
    fleet = await scenario.fleet()
    await scenario.kube.patch(PROXY_FLEETS, fleet.name, {"spec": {"pinnedRevision": 0, "drift": "heal"}}, NAMESPACE)
    await scale(scenario.kube, fleet.deployment, NAMESPACE, PROXIES)


async def routed(scenario: Scenario, name: str, count: int = PROXIES, status: int = 200) -> None:
    """Wait until every proxy routes an added route, or, with 404, no one does."""
    await until_all_answer(scenario, count, status, host_of(name))


async def in_force(scenario: Scenario, number: int) -> None:
    """Wait until the fleet says that a revision is in force on every proxy."""

    async def check() -> bool:
        status = (await scenario.fleet()).status
        loaded = set((await hashes_of(scenario)).values())
        return status.current_revision == number and loaded == {status.current_hash}

    await until(check, f"revision {number} is not in force everywhere")


async def good(scenario: Scenario, name: str) -> int:
    """Add a route, and wait until the revision in force has it and is the last good one; return its number."""
    await add_route(scenario, name)
    await routed(scenario, name)

    async def check() -> int:
        status = (await scenario.fleet()).status
        loaded = set((await hashes_of(scenario)).values())
        settled = loaded == {status.current_hash} == {status.last_good_hash}
        return status.current_revision if settled else 0

    try:
        return int(await until(check, "the current revision is not called good"))
    except AssertionError as error:
        raise AssertionError(f"{error}\n{await describe(scenario)}") from None


async def test_rolled_back_it_stays_so_until_it_is_released(scenario: Scenario) -> None:
    # given two good revisions
    first = await good(scenario, "one")
    second = await good(scenario, "two")
    # when
    done = await command(scenario, "rollback", "--to", str(first), "--yes", "-o", "json")
    # then
    assert done.code == 0, done.err
    assert (done.json["from"], done.json["to"]) == (second, first)
    assert any("two" in d["entity"] for d in done.json["differences"])
    await routed(scenario, "two", status=404)
    await routed(scenario, "one")
    # when the sources change and the controller has work to do
    await add_route(scenario, "three")
    fleet = await scenario.fleet()
    await scale(scenario.kube, fleet.deployment, NAMESPACE, PROXIES + 1)
    # then even the new proxy gets the pinned revision
    await routed(scenario, "one", PROXIES + 1)
    for name in ("two", "three"):
        assert set((await answers(scenario, host_of(name))).values()) == {404}
    shown = (await command(scenario, "history", "-o", "json")).json
    assert shown["pinned"] == first
    assert "Ingress/sample/two" in next(r["reason"] for r in shown["revisions"] if r["number"] == second)
    # when
    released = await command(scenario, "rollback", "--release", "--yes")
    # then
    assert released.code == 0, released.err
    for name in ("one", "two", "three"):
        await routed(scenario, name, PROXIES + 1)


async def set_policy(scenario: Scenario, policy: str) -> None:
    fleet = await scenario.fleet()
    await scenario.kube.patch(PROXY_FLEETS, fleet.name, {"spec": {"drift": policy}}, NAMESPACE)


async def tampered(scenario: Scenario) -> bytes:
    """What is in force, with a route more and one less."""
    fleet = await scenario.fleet()
    document = orjson.loads((await load_revision(scenario.kube, fleet, fleet.status.current_revision)).content)
    services: list[dict[str, Any]] = document["services"]
    lost = next(service for service in services if any("one" in r["name"] for r in service.get("routes", ())))
    lost["routes"] = [route for route in lost["routes"] if "one" not in route["name"]]
    lost["routes"].append({"name": "by-hand", "hosts": [host_of("hand")], "paths": ["/"], "protocols": ["http"]})
    return orjson.dumps(document)


async def test_what_somebody_posted_by_hand_is_found_named_and_brought_back_when_asked(scenario: Scenario) -> None:
    # given
    await set_policy(scenario, "report")
    await good(scenario, "one")
    desired = set((await hashes_of(scenario)).values())
    assert len(desired) == 1
    victim = (await proxies_of(scenario))[0]
    # when
    await push_by_hand(scenario, victim, await tampered(scenario))
    found = await command(scenario, "drift", "-o", "json")
    # then
    assert found.code == 2, found.err
    rows = {row["proxy"]: row for row in found.json["proxies"] if row["drift"]["kind"] == "ForeignConfiguration"}
    assert list(rows) == [victim.name]
    differences = {(d["change"], d["entity"]) for d in rows[victim.name]["differences"]}
    assert ("added", "route by-hand") in differences
    assert any(change == "missing" and "one" in entity for change, entity in differences)
    assert not any("shop.lab.test" in entity for _, entity in differences), "what is equal is not listed"
    assert SAMPLE_KEY not in found.out
    # and it is let be, as the policy says
    assert (await answers(scenario, host_of("hand")))[victim.name] == 200
    # when
    healed = await command(scenario, "drift", "--heal", "-o", "json")
    # then
    assert healed.code == 2
    assert [row["healed"] for row in healed.json["proxies"] if "healed" in row] == [True]
    assert set((await hashes_of(scenario)).values()) == desired


async def test_an_old_configuration_is_brought_back_by_the_controller_itself(scenario: Scenario) -> None:
    # given
    await set_policy(scenario, "heal")
    await good(scenario, "five")
    current = await good(scenario, "six")
    fleet = await scenario.fleet()
    old = await load_revision(scenario.kube, fleet, current - 1)
    # when a proxy comes up with what it had before
    victim = (await proxies_of(scenario))[-1]
    await push_by_hand(scenario, victim, old.content)
    # then
    await in_force(scenario, current)


async def break_sources(scenario: Scenario, config: dict[str, Any]) -> None:
    await scenario.kube.patch(PLUGINS, "say-closed", {"config": config}, SAMPLE_NAMESPACE)


async def restart_everything(scenario: Scenario) -> None:
    """Controller and proxies end at the same time; half of the proxies lose their disks as well."""
    fleet = await scenario.fleet()
    controllers = await pod_names(scenario, controller_labels(fleet))
    proxies = await pod_names(scenario, fleet.labels)
    gone, killed = proxies[: PROXIES // 2 + 1], proxies[PROXIES // 2 + 1 :]
    count, _ = await asyncio.gather(kill_containers(scenario, [*controllers, *killed]), delete_pods(scenario, gone))
    assert count >= len(controllers) + len(killed)


async def test_the_last_good_revision_survives_a_restart_of_everything_while_the_desired_one_is_broken(
    scenario: Scenario,
) -> None:
    for name in ("one", "two", "three"):
        await good(scenario, name)
    async with scenario.under_load(rate=100.0):
        # given sources that no proxy takes
        await break_sources(scenario, {"status_code": "nonsense", "unknown": os.urandom(4).hex()})
        await add_route(scenario, "four")
        # when
        await restart_everything(scenario)
        # then what was good is served again, by all
        await until_all_answer(scenario, PROXIES, 451, SHOP, "/closed")
        for name in ("one", "two", "three"):
            await routed(scenario, name)
        fleet = await scenario.fleet()
        await scenario.lab.wait_deployment(fleet.deployment, NAMESPACE, timeout=90)
        await scenario.lab.wait_deployment(fleet.controller, NAMESPACE, timeout=90)
        await until_all_answer(scenario, PROXIES, 401, API, "/v1/items")
        await until_balanced(scenario)
    report = scenario.reports[-1]
    late = [f"{f.class_name}/{f.target} {f.kind} {f.detail}" for f in report.failures if f.phase == "after"]
    assert report.phases["after"].failed == 0, late
    assert report.phases["after"].ok > 100
    assert report.phases["during"].failed > 0, "everything was down at once"
    # when repaired
    await break_sources(scenario, {"status_code": 452, "unknown": None})
    # then
    await until_all_answer(scenario, PROXIES, 452, SHOP, "/closed")
    await routed(scenario, "four")
    assert (await scenario.kube.get(DEPLOYMENTS, fleet.deployment, NAMESPACE))["spec"]["replicas"] == PROXIES
