"""Writes of many statuses: one write per proxy and change, none at rest, the newest only, nothing lost in a fault."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from fake_gateways import FakeGateways
from fake_kube import Call, FakeKube

from konverge.errors import Unavailable
from konverge.kube.resources import EVENTS, PROXY_INSTANCES
from konverge.model.condition import Outcome, set_condition
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import Mtls, Phase, Proxy, ProxyStatus
from konverge.operate.events import Recorder
from konverge.operate.fleets import list_instances
from konverge.operate.instances import InstanceWriter

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
FLEET = Fleet(name="shop", namespace="default", spec=FleetSpec(proxy_service="s"))


def status_of(revision: int, *, ok: bool = True, now: datetime = NOW, attempts: int = 1) -> ProxyStatus:
    outcome = Outcome(reason="Configured" if ok else "ProxyUnreachable", message="why", hint="reference/errors.md")
    return ProxyStatus(
        phase=Phase.SERVING if ok else Phase.QUARANTINED,
        desired_revision=revision,
        loaded_revision=revision if ok else None,
        loaded_hash=f"{revision:032x}",
        synced=ok,
        traffic_ready=ok,
        last_push=now if ok else None,
        push_milliseconds=7 if ok else None,
        attempts=attempts,
        reason=outcome.reason,
        mtls=Mtls(serial="1", expires=NOW + timedelta(days=9), verified_at=now),
        conditions=set_condition((), "TrafficReady", ok, outcome, now),
    )


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def proxies() -> list[Proxy]:
    gateways = FakeGateways()
    return [gateways.add(f"p{number}") for number in range(30)]


@pytest.fixture
def writer(kube: FakeKube) -> InstanceWriter:
    return InstanceWriter(kube, FLEET, per_second=1e6)


async def write(writer: InstanceWriter, proxies: list[Proxy], status: ProxyStatus) -> None:
    for proxy in proxies:
        writer.note(proxy, status)
    await writer.flush()


async def test_a_change_is_one_write_per_proxy_and_rest_is_none(
    kube: FakeKube, writer: InstanceWriter, proxies: list[Proxy]
) -> None:
    await write(writer, proxies, status_of(1))
    requests = kube.requests
    await write(writer, proxies, status_of(2))
    assert kube.requests - requests == len(proxies)
    requests = kube.requests
    for hours in range(5):
        later = status_of(2, now=NOW + timedelta(hours=hours), attempts=hours)
        await write(writer, proxies, later.model_copy(update={"last_push": None, "push_milliseconds": None}))
    assert kube.requests == requests, "the same again is no request at all"
    assert writer.writes == len(proxies) * 3, "create, first status, second status"


async def test_several_phases_in_a_row_are_one_write(
    kube: FakeKube, writer: InstanceWriter, proxies: list[Proxy]
) -> None:
    await write(writer, proxies, status_of(1))
    requests = kube.requests
    for revision in (2, 3, 4):
        for proxy in proxies:
            writer.note(proxy, status_of(revision))
    await writer.flush()
    assert kube.requests - requests == len(proxies)
    held = await list_instances(kube, FLEET)
    assert {status.loaded_revision for status in held.values()} == {4}


async def test_what_is_written_is_what_is_read(kube: FakeKube, writer: InstanceWriter, proxies: list[Proxy]) -> None:
    good, bad = status_of(1), status_of(2, ok=False, now=NOW + timedelta(minutes=1))
    await write(writer, proxies[:1], good)
    assert (await list_instances(kube, FLEET))["p0"] == good
    await write(writer, proxies[:1], bad)
    read = (await list_instances(kube, FLEET))["p0"]
    assert read == bad.model_copy(update={"last_push": good.last_push, "push_milliseconds": 7})
    assert read.loaded_revision is None, "an absent field goes"
    assert "loadedRevision" not in kube.one(PROXY_INSTANCES, "p0")["status"]


async def test_a_restart_writes_nothing_that_is_there(
    kube: FakeKube, writer: InstanceWriter, proxies: list[Proxy]
) -> None:
    await write(writer, proxies, status_of(1))
    before = list(kube.writes)
    fresh = InstanceWriter(kube, FLEET, per_second=1e6)
    requests = kube.requests
    await write(fresh, proxies, status_of(1, now=NOW + timedelta(hours=2)).model_copy(update={"last_push": None}))
    assert kube.requests - requests == 1, "one list"
    assert kube.writes == before
    assert fresh.statuses["p3"].conditions[0].last_transition_time == NOW


async def test_nothing_is_lost_when_the_server_fails(
    kube: FakeKube, writer: InstanceWriter, proxies: list[Proxy]
) -> None:
    await write(writer, proxies, status_of(1))
    kube.fail(1, lambda: Unavailable("down"), lambda call: call.method == "PATCH" and call.name == "p7")
    with pytest.raises(Unavailable):
        await write(writer, proxies, status_of(2))
    await writer.flush()
    assert {s.loaded_revision for s in (await list_instances(kube, FLEET)).values()} == {2}


async def test_an_object_that_was_deleted_is_made_again(
    kube: FakeKube, writer: InstanceWriter, proxies: list[Proxy]
) -> None:
    await write(writer, proxies, status_of(1))
    kube.drop(PROXY_INSTANCES, "p4")
    await write(writer, proxies, status_of(2))
    assert (await list_instances(kube, FLEET))["p4"].loaded_revision == 2


async def test_a_proxy_that_is_gone_is_forgotten(
    kube: FakeKube, writer: InstanceWriter, proxies: list[Proxy]
) -> None:
    await write(writer, proxies, status_of(1))
    for proxy in proxies:
        writer.note(proxy, status_of(2))
    writer.keep_only(["p1"])
    requests = kube.requests
    await writer.flush()
    assert kube.requests - requests == 1
    assert set(writer.statuses) == {"p1"}


async def test_it_writes_by_itself_and_comes_back_after_a_fault(
    kube: FakeKube, writer: InstanceWriter, proxies: list[Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("konverge.operate.instances.COALESCE_SECONDS", 0.0)
    monkeypatch.setattr("konverge.operate.instances.LONGEST_DELAY", 0.0)
    kube.fail(3, lambda: Unavailable("down"), lambda call: call.writes)
    patched: set[str] = set()
    last = asyncio.Event()

    def watch(call: Call) -> None:
        if call.method == "PATCH":
            patched.add(call.name)
        if len(patched) == len(proxies):
            last.set()

    kube.after.append(watch)
    task = asyncio.create_task(writer.run())
    for proxy in proxies:
        writer.note(proxy, status_of(1))
    await asyncio.wait_for(last.wait(), 30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(await list_instances(kube, FLEET)) == len(proxies)


async def test_quarantine_and_recovery_are_told_on_the_pod(kube: FakeKube, proxies: list[Proxy]) -> None:
    recorder = Recorder(kube)
    writer = InstanceWriter(kube, FLEET, per_second=1e6, recorder=recorder)
    for ok in (True, False, False, True, True):
        await write(writer, proxies[:1], status_of(1, ok=ok))
    await recorder.flush()
    told = [(e["reason"], e["count"], e["involvedObject"]["name"]) for e in kube.all(EVENTS)]
    assert told == [("Quarantined", 1, "p0"), ("Recovered", 1, "p0")]
