"""Events: counted up, cut, limited per object, kept through a failing API server, never a failure of the caller."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_kube import FakeKube

from konverge.decide.assessing import assess_fleet
from konverge.errors import Forbidden, Unavailable
from konverge.kube.resources import EVENTS, Object
from konverge.model.condition import Condition, ObjectRef
from konverge.model.fleet import FleetSpec
from konverge.operate.events import (
    BURST,
    LONGEST_MESSAGE,
    REFILL_SECONDS,
    REFRESH_SECONDS,
    REMEMBERED,
    SIMILAR,
    Recorder,
    tell_conditions,
)
from konverge.translate.problems import ObjectRef as TranslatedRef

INGRESS = TranslatedRef("Ingress", "shop", "web", "uid-1", "networking.k8s.io/v1")


class Turning:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 5, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def clock() -> Turning:
    return Turning()


@pytest.fixture
def recorder(kube: FakeKube, clock: Turning) -> Recorder:
    return Recorder(kube, instance="pod-1", clock=clock)


def events(kube: FakeKube) -> list[Object]:
    return kube.all(EVENTS)


async def test_an_event_names_its_object_and_reason(kube: FakeKube, recorder: Recorder) -> None:
    recorder.record(INGRESS, "BackendNotFound", "no Service shop/web", hint="reference/translation/problems.md#x")
    await recorder.flush()
    (event,) = events(kube)
    assert event["involvedObject"] == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "namespace": "shop",
        "name": "web",
        "uid": "uid-1",
    }
    assert (event["reason"], event["type"], event["count"]) == ("BackendNotFound", "Warning", 1)
    assert event["metadata"]["namespace"] == "shop"
    assert event["metadata"]["annotations"]["konverge.dev/hint"].startswith("docs/reference/")
    assert (event["reportingComponent"], event["reportingInstance"]) == ("konverge-controller", "pod-1")


async def test_an_object_of_the_cluster_has_its_events_in_default(kube: FakeKube, recorder: Recorder) -> None:
    recorder.record(ObjectRef(kind="KongClusterPlugin", name="global"), "PluginConfigInvalid", "x", "Normal")
    await recorder.flush()
    (event,) = events(kube)
    assert event["metadata"]["namespace"] == "default"
    assert event["involvedObject"]["apiVersion"] == "configuration.konghq.com/v1"
    assert event["type"] == "Normal"


async def test_the_same_again_counts_up_and_is_written_once_a_minute(
    kube: FakeKube, recorder: Recorder, clock: Turning
) -> None:
    for _ in range(5):
        recorder.record(INGRESS, "BackendNotFound", "no Service")
        await recorder.flush()
        clock.turn(1)
    assert len(kube.writes) == 1
    clock.turn(REFRESH_SECONDS)
    await recorder.flush()
    (event,) = events(kube)
    assert (event["count"], event["lastTimestamp"]) == (5, "2026-05-01T12:00:04Z")
    clock.turn(REFRESH_SECONDS)
    await recorder.flush()
    assert len(kube.writes) == 2, "at rest nothing is written"


async def test_many_messages_of_one_reason_become_one_event(kube: FakeKube, recorder: Recorder) -> None:
    for number in range(SIMILAR + 7):
        recorder.record(INGRESS, "BackendNotFound", f"no Service {number}")
    await recorder.flush()
    combined = [e for e in events(kube) if e["message"].startswith("(combined")]
    assert len(events(kube)) == SIMILAR + 1
    assert [e["count"] for e in combined] == [7]


async def test_an_object_has_a_budget_that_refills(kube: FakeKube, recorder: Recorder, clock: Turning) -> None:
    for number in range(BURST + 4):
        recorder.record(INGRESS, f"Reason{number}", "x")
    other = INGRESS._replace(name="other", uid="uid-2")
    recorder.record(other, "Reason", "x")
    await recorder.flush()
    assert len(events(kube)) == BURST + 1, "another object has its own"
    assert recorder.dropped == 4
    clock.turn(REFILL_SECONDS + 1)
    recorder.record(INGRESS, "Fresh", "x")
    await recorder.flush()
    assert len(events(kube)) == BURST + 2


async def test_a_message_is_cut(kube: FakeKube, recorder: Recorder) -> None:
    recorder.record(INGRESS, "TooLong", "m" * 5000)
    await recorder.flush()
    assert len(events(kube)[0]["message"]) == LONGEST_MESSAGE


async def test_a_failing_server_costs_nothing_but_time(kube: FakeKube, recorder: Recorder, clock: Turning) -> None:
    kube.fail(1, lambda: Unavailable("down"), lambda call: call.writes)
    recorder.record(INGRESS, "BackendNotFound", "x")
    await recorder.flush()
    assert events(kube) == []
    clock.turn(REFRESH_SECONDS)
    await recorder.flush()
    assert len(events(kube)) == 1


async def test_a_refusing_server_is_not_asked_for_ever(kube: FakeKube, recorder: Recorder, clock: Turning) -> None:
    kube.fail(99, lambda: Forbidden("no"), lambda call: call.writes)
    recorder.record(INGRESS, "BackendNotFound", "x")
    await recorder.flush()
    requests = kube.requests
    clock.turn(REFRESH_SECONDS)
    await recorder.flush()
    assert (recorder.dropped, kube.requests) == (1, requests)


async def test_an_event_that_has_expired_is_made_anew(kube: FakeKube, recorder: Recorder, clock: Turning) -> None:
    recorder.record(INGRESS, "BackendNotFound", "x")
    await recorder.flush()
    kube.objects[EVENTS].clear()
    clock.turn(REFRESH_SECONDS)
    recorder.record(INGRESS, "BackendNotFound", "x")
    await recorder.flush()
    assert [e["count"] for e in events(kube)] == [2]


async def test_it_writes_by_itself_while_it_runs(kube: FakeKube, recorder: Recorder) -> None:
    written = asyncio.Event()
    kube.after.append(lambda call: written.set() if call.writes else None)
    task = asyncio.create_task(recorder.run(pause=0.0))
    recorder.record(INGRESS, "BackendNotFound", "x")
    await asyncio.wait_for(written.wait(), 30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(events(kube)) == 1


async def test_a_storm_is_written_in_rounds_and_nothing_of_it_is_lost(kube: FakeKube, recorder: Recorder) -> None:
    for number in range(60):
        recorder.record(INGRESS._replace(name=f"web-{number}", uid=str(number)), "BackendNotFound", "x")
    written = []
    for _ in range(4):
        await recorder.flush(25)
        written.append(len(events(kube)))
    assert written == [25, 50, 60, 60]
    assert recorder.dropped == 0


async def test_what_is_forgotten_makes_room_for_other_messages(kube: FakeKube, recorder: Recorder) -> None:
    for number in range(SIMILAR):
        recorder.record(INGRESS, "BackendNotFound", f"first {number}")
    for number in range(REMEMBERED):
        recorder.record(INGRESS._replace(name=f"web-{number}", uid=str(number)), "BackendNotFound", "x")
    assert recorder.dropped == SIMILAR
    recorder.record(INGRESS, "BackendNotFound", "second")
    await recorder.flush()
    told = [event["message"] for event in events(kube) if event["involvedObject"]["name"] == "web"]
    assert told == ["second"]


async def test_what_is_counted_up_in_a_storm_looks_at_no_other_event(recorder: Recorder) -> None:
    class Unscanned(OrderedDict[tuple[str, ...], Any]):
        def __iter__(self) -> Iterator[tuple[str, ...]]:
            raise AssertionError("the known events are scanned")

    recorder._known = Unscanned()
    for number in range(REMEMBERED + 10):
        for _ in range(2):
            recorder.record(INGRESS._replace(name=f"web-{number}", uid=str(number)), "BackendNotFound", "x")
    assert len(recorder._known) == REMEMBERED


async def test_a_condition_is_told_when_it_becomes_true(kube: FakeKube, recorder: Recorder, clock: Turning) -> None:
    ref = ObjectRef(kind="ProxyFleet", name="shop", namespace="default", uid="u")
    said: tuple[Condition, ...] = ()
    for spec in ({}, {"paused": True}, {"paused": True}, {}, {"pinned_revision": 4}):
        fresh = assess_fleet(FleetSpec(proxy_service="s", **spec), said, {}, clock())
        tell_conditions(recorder, ref, said, fresh)
        said = fresh
    await recorder.flush()
    assert [(e["reason"], e["type"], e["count"]) for e in events(kube)] == [
        ("Paused", "Normal", 1),
        ("Pinned", "Normal", 1),
    ]
