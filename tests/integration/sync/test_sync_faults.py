"""The fault matrix of the engine: one of three gateways misbehaves, the others finish, each reason is right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from konverge.model.fleet import Analysis, Rollout
from konverge.model.proxy import ProxyOutcome
from konverge.operate import configuring, judging, visiting
from konverge.operate.configuring import HINT, slug
from konverge.operate.fleets import list_instances
from konverge.operate.syncing import SyncReport, Verdict
from tests.integration.sync.standins import Gang, issue_expired, issue_foreign, open_gang

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
SICK = 1
"""Index of the gateway that misbehaves; it is not the canary."""
CONTENT_FREE = ("_format_version", "BEGIN ", "services")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def everybody(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gang]:
    async with open_gang(tmp_path_factory.mktemp("gang"), 3) as gang:
        yield gang


@pytest_asyncio.fixture(loop_scope="module")
async def gang(everybody: Gang, monkeypatch: pytest.MonkeyPatch) -> Gang:
    """Everybody in good health on a common revision."""
    monkeypatch.setattr(configuring, "LONGEST_WAIT", 0.2)
    await everybody.calm()
    everybody.rollout = Rollout(canary=1, wave_size=50)
    report = await everybody.sync(await everybody.revise())
    assert all(outcome.ok for outcome in report.outcomes), [o.outcome for o in report.outcomes]
    return everybody


def of(report: SyncReport, gang: Gang, index: int = SICK) -> ProxyOutcome:
    return next(o for o in report.outcomes if o.proxy == gang.members[index].name)


async def then_only_one_is_sick(gang: Gang, report: SyncReport, reason: str, wanted: str) -> ProxyOutcome:
    """The others run the revision; the sick one has the reason, says it where people look, and leads to its page."""
    assert report.verdict is Verdict.COMPLETED, report.outcome
    healthy = [m for n, m in enumerate(gang.members) if n != SICK]
    assert [await m.hash() for m in healthy] == [wanted] * 2
    outcome = of(report, gang)
    assert outcome.outcome.reason == reason, outcome.outcome
    assert outcome.outcome.hint.endswith(f"{HINT.rpartition('/')[2]}#{slug(reason)}")
    assert not any(text in outcome.outcome.message for text in CONTENT_FREE)
    instances = await list_instances(gang.kube, gang.fleet)
    assert instances[outcome.proxy].reason == reason
    assert instances[outcome.proxy].phase == "Quarantined"
    return outcome


@pytest.mark.parametrize(
    ("fault", "reason", "attempts"),
    [
        ({"refuse_on": "admin"}, "ProxyUnreachable", 1),
        ({"busy": -1}, "ProxyBusy", configuring.ATTEMPTS),
        ({"exiting_503": -1}, "ProxyExiting", configuring.ATTEMPTS),
        # So small a body is sent whole before the reset is seen: whether it was stored is open, so the hash is read.
        ({"reset_after": 0}, "PushUnknown", configuring.ATTEMPTS),
        ({"reset_after": 100}, "PushUnknown", configuring.ATTEMPTS),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else str(value),
)
async def test_a_proxy_that_cannot_take_it(gang: Gang, fault: dict[str, Any], reason: str, attempts: int) -> None:
    before = await gang.members[SICK].hash()
    await gang.members[SICK].fault(**fault)
    revision = await gang.revise()
    outcome = await then_only_one_is_sick(gang, await gang.sync(revision), reason, revision.hash)
    assert outcome.attempts == attempts
    assert outcome.retryable
    assert await gang.members[SICK].hash() == before, "it holds what it had"
    await gang.calm()
    report = await gang.sync(revision)
    assert of(report, gang).ok


@pytest.mark.parametrize(
    "fault",
    [
        {"stored_500": 1},
        {"exiting_503": 1},
        {"busy": 1},
        {"truncate_after": 0},
        {"truncate_after": 20},
        {"delay": 0.3},
        {"load_extra": 0.5},
        {"router_extra": 0.5},
    ],
    ids=lambda value: next(iter(value)),
)
async def test_what_looks_like_a_failure_and_is_none(gang: Gang, fault: dict[str, Any]) -> None:
    await gang.members[SICK].fault(**fault)
    revision = await gang.revise()
    report = await gang.sync(revision)
    assert of(report, gang).ok, of(report, gang).outcome
    assert await gang.hashes() == [revision.hash] * 3


async def test_a_dead_proxy(gang: Gang) -> None:
    await gang.members[SICK].kill()
    revision = await gang.revise()
    await then_only_one_is_sick(gang, await gang.sync(revision), "ProxyUnreachable", revision.hash)


async def test_a_proxy_that_never_answers_is_given_up(gang: Gang, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visiting, "STRAGGLER_SECONDS", 3.0)
    monkeypatch.setattr(visiting, "VISIT_SECONDS", 30.0)
    await gang.members[SICK].fault(load_extra=60.0)
    revision = await gang.revise()
    report = await asyncio.wait_for(gang.sync(revision), 90)
    outcome = await then_only_one_is_sick(gang, report, "ProxySlow", revision.hash)
    assert outcome.retryable
    await gang.members[SICK].restart()


async def test_a_restart_in_mid_push(gang: Gang) -> None:
    sick = gang.members[SICK]
    before = await sick.hash()
    await sick.fault(load_extra=2.0)
    revision = await gang.revise()
    sync = asyncio.create_task(gang.sync(revision))
    async with asyncio.timeout(60):
        while await gang.members[2].hash() != revision.hash:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await sick.restart()
    assert await sick.hash() in (before, revision.hash), "old or new, nothing else"
    report = await sync
    assert await gang.members[0].hash() == await gang.members[2].hash() == revision.hash
    if not of(report, gang).ok:
        assert of(report, gang).outcome.reason in ("ProxyUnreachable", "PushUnknown")
        report = await gang.sync(revision)
    assert of(report, gang).ok
    assert await sick.hash() == revision.hash


@pytest.mark.parametrize("name", ["expired", "foreign"])
async def test_a_certificate_that_nobody_accepts(gang: Gang, name: str) -> None:
    before = await gang.hashes()
    files = issue_expired(gang) if name == "expired" else issue_foreign(gang)
    report = await gang.sync(await gang.revise(), files=files)
    assert {o.outcome.reason for o in report.outcomes} == {"IdentityRefused"}
    assert await gang.hashes() == before
    assert report.verdict is Verdict.COMPLETED, "an identity says nothing about a configuration"


@pytest.mark.parametrize("days", [-800, 800])
async def test_a_proxy_whose_clock_is_off(gang: Gang, days: int) -> None:
    await gang.members[SICK].fault(clock_offset=days * 86400.0)
    revision = await gang.revise()
    await then_only_one_is_sick(gang, await gang.sync(revision), "IdentityRefused", revision.hash)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"lmdb_full": -1}, "ConfigurationTooLarge"),
        ({"router_extra": -1.0}, "DataPathFailed"),
        ({"wrong_hash": -1}, "HashMismatch"),
    ],
)
async def test_what_speaks_against_the_configuration_is_taken_back(
    gang: Gang, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any], reason: str
) -> None:
    monkeypatch.setattr(configuring, "PROBE_SECONDS", 1.0)
    good = await gang.revise()
    await gang.sync(good)
    await gang.members[SICK].fault(**fault)
    report = await gang.sync(await gang.revise(), previous=good)
    assert report.verdict is Verdict.ROLLED_BACK
    assert report.outcome.reason == reason
    assert f"proxy {gang.members[SICK].name}" in report.outcome.message
    assert [await gang.members[n].hash() for n in (0, 2)] == [good.hash] * 2


async def test_a_refused_configuration_names_the_object_and_reaches_nobody(gang: Gang) -> None:
    before = await gang.hashes()
    tags = ["k8s-name:web", "k8s-namespace:shop", "k8s-kind:Ingress", "k8s-uid:u1"]
    bad = {"name": "bad", "paths": ["/x"], "protocols": ["htp"], "tags": tags}
    report = await gang.sync(await gang.revise([bad]))
    assert report.verdict is Verdict.HELD
    assert report.outcome.reason == "ConfigurationRefused"
    assert "stopped at canary" in report.outcome.message
    assert "Ingress/shop/web" in report.outcome.message
    assert [str(b.object) for b in report.outcomes[0].blamed] == ["Ingress/shop/web"]
    assert await gang.hashes() == before
    assert len(report.outcomes) == 1


async def test_a_lock_left_behind_is_its_own_reason(gang: Gang, monkeypatch: pytest.MonkeyPatch) -> None:
    from konverge.kong import loading

    monkeypatch.setattr(loading, "LONGEST_LOAD", 0.3)
    await gang.members[SICK].control("POST", "/orphan-lock")
    revision = await gang.revise()
    outcome = await then_only_one_is_sick(gang, await gang.sync(revision), "WorkerLost", revision.hash)
    assert outcome.retryable
    await gang.members[SICK].restart()
    assert of(await gang.sync(revision), gang).ok


async def test_metrics_that_are_off_conclude_nothing(gang: Gang) -> None:
    gang.rollout = Rollout(canary=1, wave_size=50, soak_seconds=0.01)
    report = await gang.sync(await gang.revise())
    found = {w.judgement.outcome.reason for w in report.waves if w.judgement}
    assert found == {"MetricsInconclusive"}
    assert report.verdict is Verdict.COMPLETED


def answering(status: int) -> dict[str, list[dict[str, Any]]]:
    """A route that answers with a status, and the metrics that count it."""
    plugin = {"name": "request-termination", "config": {"status_code": status}}
    metrics = {"name": "prometheus", "config": {"status_code_metrics": True, "latency_metrics": True}}
    return {"routes": [{"name": "shop", "paths": ["/shop"], "plugins": [plugin]}], "plugins": [metrics]}


async def ask(gang: Gang, times: int) -> None:
    """Send requests to the canary."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        for _ in range(times):
            await client.get(f"http://127.0.0.1:{gang.members[0].ports['proxy']}/shop")


async def test_more_errors_after_the_push_are_taken_back(gang: Gang, monkeypatch: pytest.MonkeyPatch) -> None:
    good = await gang.revise(**answering(200))
    await gang.sync(good)
    await ask(gang, 60)
    gang.rollout = Rollout(canary=1, wave_size=50, soak_seconds=1.0, analysis=Analysis(min_requests=20))
    monkeypatch.setattr(judging, "soak", lambda seconds: ask(gang, 60))
    report = await gang.sync(await gang.revise(**answering(500)), previous=good)
    assert report.verdict is Verdict.ROLLED_BACK
    assert report.outcome.reason == "ErrorsIncreased", report.outcome
    assert "60 of 60 answers are 5xx (100.0%), 0.0% of 60 before" in report.outcome.message
    assert await gang.hashes() == [good.hash] * 3
