"""Certificates are rotated under load: no failed Admin call, no failed request.

But for one race, which is counted apart: see ``then_nothing_failed_but_the_race``.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from konverge.cli.demo.staging import NAMESPACE, SERVICE
from konverge.kube.resources import ENDPOINT_SLICES, EVENTS, LEASES, PODS, PROXY_FLEETS, PROXY_INSTANCES
from konverge.model.proxy import CONFIGURED_GATE, Proxy
from konverge.model.rotation import RotationKind, RotationReport, RotationState
from konverge.operate.identities import FleetKeys, load_keys
from konverge.operate.observing import Observer, issue_probe
from konverge.operate.orchestrator import PrefectServer
from konverge.operate.settling import SERIAL_ANNOTATION
from konverge.pki.contexts import build_client_context
from konverge.pki.files import IdentityFiles
from konverge.pki.handshake import HandshakeReason, prove
from konverge.pki.resuming import visit
from tests.e2e.calling import calling
from tests.e2e.killing import FlowProcess
from tests.e2e.living_fleet import command, find_listeners, give_fault, given_a_living_fleet, proxies_of, until
from tests.e2e.scenario import FLEET, Scenario, open_scenario

pytestmark = [
    pytest.mark.lab,
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(400),
]

PROXIES = 3
SEED = int(os.environ.get("KONVERGE_TEST_SEED") or random.SystemRandom().randrange(2**32))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario(prefect_server: PrefectServer, lab_home: Path) -> AsyncIterator[Scenario]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KONVERGE_PREFECT_HOME", str(lab_home / "rotation-flows"))
        async with open_scenario("rotation", lab_home, prefect_server) as opened:
            await given_a_living_fleet(opened, PROXIES)
            yield opened


@pytest.fixture
def dice() -> random.Random:
    print(f"KONVERGE_TEST_SEED={SEED}")
    return random.Random(SEED)


def count_reloads(report: RotationReport) -> int:
    return sum(work.reloads for step in report.steps for work in step.proxies)


async def keys_of(scenario: Scenario) -> FleetKeys:
    return await load_keys(scenario.kube, await scenario.fleet())


async def rotate(scenario: Scenario, kind: RotationKind, **parameters: Any) -> RotationReport:
    result = await scenario.run("cert-rotation", kind=kind.value, **parameters)
    return RotationReport.model_validate(result.value)


async def then_one_authority_is_in_force(scenario: Scenario, before: FleetKeys) -> None:
    """Every proxy shows the stored certificate and lets in nobody but the one authority; the status says so."""
    keys = await keys_of(scenario)
    assert keys.authorities.successor is None
    current = keys.authorities.current.certificate
    assert current.fingerprint != before.authorities.current.certificate.fingerprint
    observer = Observer.of(keys)
    seen = await observer.look(await proxies_of(scenario))
    assert [(proxy.seen, proxy.trusts) for proxy in seen] == [("", (current.fingerprint,))] * PROXIES
    await then_refused(scenario, before)
    serial = keys.proxies.files.identity.certificate.serial
    for body in await scenario.kube.list_all(PROXY_INSTANCES, NAMESPACE):
        assert body["status"]["mtls"]["serial"] == serial, body["metadata"]["name"]


async def then_refused(scenario: Scenario, before: FleetKeys) -> None:
    """The former identity of the controller is let in by nobody, and a throw-away one of its authority neither."""
    trust = (await keys_of(scenario)).controller.files.bundle
    former = before.controller.files.identity
    probe = issue_probe(before.authorities.current, trust).identity
    for proxy in await proxies_of(scenario):
        for identity in (former, probe):
            context = build_client_context(trust, identity)
            shown = await prove(proxy.ip, proxy.admin_port, proxy.server_name, context)
            assert shown.reason is HandshakeReason.CLIENT_REFUSED, (proxy.name, shown)


async def test_leaves_are_rotated_under_load(scenario: Scenario) -> None:
    before = await keys_of(scenario)
    async with scenario.under_load(), calling(scenario) as calls:
        report = await rotate(scenario, RotationKind.LEAF)
    scenario.then_nothing_failed_but_the_race(count_reloads(report))
    assert count_reloads(report) == PROXIES
    calls.then_none_failed()
    assert report.state is RotationState.DONE
    after = await keys_of(scenario)
    for one, other in ((before.controller, after.controller), (before.proxies, after.proxies)):
        assert one.files.identity.certificate.serial != other.files.identity.certificate.serial
    assert {work.reloads for work in report.steps[0].proxies} == {1}
    assert all(work.seconds > 0 for work in report.steps[0].proxies)
    lease = await scenario.kube.get(LEASES, (await scenario.fleet()).controller, NAMESPACE)
    shown = lease["metadata"]["annotations"][SERIAL_ANNOTATION]
    assert shown == after.controller.files.identity.certificate.serial, "the controller says which one it shows"


async def test_the_authority_is_rotated_under_load(scenario: Scenario) -> None:
    before = await keys_of(scenario)
    async with scenario.under_load(), calling(scenario) as calls:
        report = await rotate(scenario, RotationKind.AUTHORITY)
    scenario.then_nothing_failed_but_the_race(count_reloads(report))
    assert count_reloads(report) == 3 * PROXIES
    calls.then_none_failed()
    assert report.state is RotationState.DONE
    assert calls.swaps >= 3, "the controller's identity changed while it was calling"
    await then_one_authority_is_in_force(scenario, before)


async def test_an_emergency_under_load_ends_the_access_of_a_revoked_certificate(scenario: Scenario) -> None:
    before = await keys_of(scenario)
    leaf = before.controller.files.identity.certificate
    sessions = await open_sessions(scenario, before.controller.files)
    async with scenario.under_load(), calling(scenario) as calls:
        ended = await command(scenario, "certs", "rotate", "--emergency", "--revoke", leaf.serial, "-o", "json")
    assert ended.code == 0, ended.err
    report = RotationReport.model_validate(ended.json)
    scenario.then_nothing_failed_but_the_race(count_reloads(report))
    assert count_reloads(report) == 2 * PROXIES
    calls.then_none_failed()
    assert [step.step for step in report.steps] == ["prepare", "replace", "switch", "retire"]
    await then_one_authority_is_in_force(scenario, before)
    for proxy, context, session in sessions:
        came = await visit(proxy.ip, proxy.admin_port, proxy.server_name, context, session=session)
        assert came.refusal, f"{proxy.name} let a session of the revoked certificate in"


async def open_sessions(scenario: Scenario, files: IdentityFiles) -> list[Any]:
    """What a thief of the certificate could keep for later."""
    found = []
    for proxy in await proxies_of(scenario):
        context = build_client_context(files.bundle, files.identity)
        came = await visit(proxy.ip, proxy.admin_port, proxy.server_name, context)
        assert not came.refusal
        context.check_hostname = False
        context.verify_mode = 0  # type: ignore[assignment]  # a thief asks nobody who answers
        found.append((proxy, context, came.session))
    return found


@asynccontextmanager
async def cut_off(scenario: Scenario, pod: str) -> AsyncIterator[None]:
    """Stop whatever listens in a pod, also what the kubelet starts anew: like a machine behind a broken link."""
    proxy = next(proxy for proxy in await proxies_of(scenario) if proxy.name == pod)

    async def signal_all(number: int) -> None:
        for pid in await asyncio.to_thread(find_listeners, {proxy.ip}):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def keep_down() -> None:
        while True:
            await signal_all(signal.SIGSTOP)
            await asyncio.sleep(0.1)

    await signal_all(signal.SIGSTOP)
    task = asyncio.create_task(keep_down())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        await signal_all(signal.SIGCONT)


@pytest.mark.long
async def test_a_proxy_that_is_down_owes_and_catches_up_when_it_is_back(scenario: Scenario) -> None:
    before = await keys_of(scenario)
    victim = (await proxies_of(scenario))[1].name
    async with calling(scenario) as calls:
        calls.excused.add(victim)
        async with cut_off(scenario, victim):
            report = await rotate(scenario, RotationKind.AUTHORITY)
        assert report.state is RotationState.WAITING
        assert report.owing == (victim,)
        assert (await keys_of(scenario)).controller.files.identity == before.controller.files.identity
        await until(lambda: is_ready(scenario, victim), "the proxy is back")
        async with scenario.under_load():
            calls.excused.clear()
            report = await rotate(scenario, RotationKind.AUTO)
    scenario.then_nothing_failed_but_the_race(count_reloads(report))
    calls.then_none_failed()
    assert report.state is RotationState.DONE
    await then_one_authority_is_in_force(scenario, before)


async def is_ready(scenario: Scenario, pod: str) -> bool:
    conditions = (await scenario.kube.get(PODS, pod, NAMESPACE))["status"]["conditions"]
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    proxy = next(p for p in await proxies_of(scenario) if p.name == pod)
    observer = Observer.of(await keys_of(scenario))
    return ready and (await observer.look([proxy]))[0].reachable


async def test_in_an_emergency_a_proxy_that_is_cut_off_is_left_out_until_it_is_healed(scenario: Scenario) -> None:
    """Its traffic is well, its Admin API is out of reach: the worst case, since nothing restarts it.

    When the link is back it still lets the revoked identity in. That is over before it gets traffic again.
    """
    before = await keys_of(scenario)
    revoked = before.controller.files
    victim = (await proxies_of(scenario))[1]
    sessions, restarts = await open_sessions(scenario, revoked), await count_restarts(scenario, victim)
    async with scenario.under_load(), calling(scenario) as calls:
        calls.excused.add(victim.name)
        async with refusing_admin(victim):
            serial = revoked.identity.certificate.serial
            ended = await command(scenario, "certs", "rotate", "--emergency", "--revoke", serial, "-o", "json")
            report = RotationReport.model_validate(ended.json)
            assert (ended.code, report.state, report.owing) == (2, RotationState.WAITING, (victim.name,)), ended.err
            assert await read_gate(scenario, victim) == ("False", "IdentityOwed")
            await until(lambda: is_out_of_traffic(scenario, victim), "no router sends it anything", 30.0)
        looks = await watch_until_in_traffic(scenario, victim, revoked)
        calls.excused.clear()
    scenario.then_nothing_failed_but_the_race(count_reloads(report) + 1)
    calls.then_none_failed()
    assert [look for look in looks if look.in_traffic and look.lets_in] == [], "traffic, and the revoked one let in"
    assert not looks[-1].lets_in
    assert await count_restarts(scenario, victim) == restarts, "it came back with what it had, and was reloaded"
    assert "IdentityHealed" in await reasons_about(scenario, victim)
    await until(lambda: shows_stored(scenario, victim), "its status shows the new certificate", 30.0)
    await then_one_authority_is_in_force(scenario, before)
    for proxy, context, session in sessions:
        came = await visit(proxy.ip, proxy.admin_port, proxy.server_name, context, session=session)
        assert came.refusal, f"{proxy.name} let a session of the revoked certificate in"


@asynccontextmanager
async def refusing_admin(proxy: Proxy) -> AsyncIterator[None]:
    """Cut a proxy's Admin API off: whoever connects to it is reset."""
    await give_fault(proxy, refuse_on="admin")
    try:
        yield
    finally:
        await give_fault(proxy, refuse_on="")


@dataclass(frozen=True)
class Look:
    """Whether a proxy was in traffic before and after a handshake, and whether that let the revoked one in."""

    in_traffic: bool
    lets_in: bool


async def watch_until_in_traffic(scenario: Scenario, proxy: Proxy, revoked: IdentityFiles) -> list[Look]:
    """Look at a proxy again and again with the revoked identity, until it is in traffic; the last look is then."""
    looks: list[Look] = []
    context = build_client_context(revoked.bundle, revoked.identity)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    async def look() -> bool:
        out_before = await is_out_of_traffic(scenario, proxy)
        came = await visit(proxy.ip, proxy.admin_port, proxy.server_name, context)
        in_traffic = not out_before and not await is_out_of_traffic(scenario, proxy)
        looks.append(Look(in_traffic, not came.refusal))
        return in_traffic

    await until(look, "it is healed and back in traffic")
    return looks


async def is_out_of_traffic(scenario: Scenario, proxy: Proxy) -> bool:
    """Whether no ready endpoint of the Service that carries the traffic leads to a proxy."""
    label = f"kubernetes.io/service-name={SERVICE}"
    slices = await scenario.kube.list_all(ENDPOINT_SLICES, NAMESPACE, labels=label)
    endpoints = [endpoint for body in slices for endpoint in body.get("endpoints") or ()]
    assert endpoints
    ready = [e for e in endpoints if (e.get("conditions") or {}).get("ready") is not False]
    return all(proxy.ip not in endpoint["addresses"] for endpoint in ready)


async def read_gate(scenario: Scenario, proxy: Proxy) -> tuple[str, str]:
    conditions = (await scenario.kube.get(PODS, proxy.name, NAMESPACE))["status"]["conditions"]
    return next((c["status"], c["reason"]) for c in conditions if c["type"] == CONFIGURED_GATE)


async def count_restarts(scenario: Scenario, proxy: Proxy) -> int:
    states = (await scenario.kube.get(PODS, proxy.name, NAMESPACE))["status"]["containerStatuses"]
    return sum(state["restartCount"] for state in states)


async def reasons_about(scenario: Scenario, proxy: Proxy) -> set[str]:
    events = await scenario.kube.list_all(EVENTS, NAMESPACE)
    return {event["reason"] for event in events if event["involvedObject"]["name"] == proxy.name}


async def shows_stored(scenario: Scenario, proxy: Proxy) -> bool:
    body = await scenario.kube.get(PROXY_INSTANCES, proxy.name, NAMESPACE)
    stored = (await keys_of(scenario)).proxies.files.identity.certificate.serial
    return bool(body["status"]["mtls"]["serial"] == stored)


async def test_killed_after_every_step_it_goes_on(scenario: Scenario, dice: random.Random) -> None:
    before = await keys_of(scenario)
    async with scenario.under_load(), calling(scenario) as calls:
        kind, reloads = RotationKind.AUTHORITY, 0
        for step in ("prepare", "trust-both", "reissue", "switch", "retire"):
            flow = await FlowProcess.start(scenario, "cert-rotation", kind=kind.value)
            try:
                seen, ended = await until_progress(flow, step)
                # One more may be under way when it is killed.
                reloads += seen + 1
                await asyncio.sleep(dice.uniform(0.0, 0.3))
            finally:
                assert await flow.kill() == -signal.SIGKILL or ended
            kind = RotationKind.AUTO
        report = await rotate(scenario, kind)
    scenario.then_nothing_failed_but_the_race(reloads + count_reloads(report))
    calls.then_none_failed()
    assert report.state in (RotationState.DONE, RotationState.NOTHING_DUE)
    await then_one_authority_is_in_force(scenario, before)


async def until_progress(flow: FlowProcess, step: str) -> tuple[int, bool]:
    """Follow what a flow tells until it has ended a step; returns its reloads, and True where it ended altogether."""
    assert flow.process.stdout is not None
    reloads = 0
    async with asyncio.timeout(120):
        async for raw in flow.process.stdout:
            line = orjson.loads(raw)
            assert "error" not in line, line
            progress = line.get("progress", {})
            reloads += int(progress.get("reloads", 0))
            if progress.get("step") == step and "message" in progress:
                return reloads, False
            if "result" in line:
                return reloads, True
    return reloads, True


@pytest.mark.long
async def test_a_fleet_that_restarts_its_proxies_rotates_as_well(scenario: Scenario) -> None:
    """Last, since the pods are others afterwards."""
    before, former = await keys_of(scenario), {proxy.name for proxy in await proxies_of(scenario)}
    patch = {"spec": {"identity": {"reload": "restart"}}}
    await scenario.kube.patch(PROXY_FLEETS, FLEET, patch, NAMESPACE)
    async with scenario.under_load():
        report = await rotate(scenario, RotationKind.LEAF)
    scenario.then_nothing_failed_but_the_race(count_reloads(report))
    assert report.state is RotationState.DONE
    assert count_reloads(report) == PROXIES
    proxies = await proxies_of(scenario)
    assert former.isdisjoint(proxy.name for proxy in proxies)
    keys = await keys_of(scenario)
    assert keys.proxies.files.identity.certificate.serial != before.proxies.files.identity.certificate.serial
    seen = await Observer.of(keys).look(proxies)
    assert [identity.seen for identity in seen] == [""] * PROXIES
    await scenario.then_every_proxy_is_in_sync(PROXIES)
