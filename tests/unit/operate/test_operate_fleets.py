"""ProxyFleet, ProxyInstance and FleetMigration objects: read, written, written against others, named when wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_gateways import FakeGateways
from fake_kube import KNOWN, Call, FakeKube

from konverge.errors import CheckRefused, Conflict, Invalid, NotFound
from konverge.kube.resources import PROXY_FLEETS, PROXY_INSTANCES
from konverge.model.condition import Outcome, find_condition
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.migration import MigrationPhase, MigrationSpec, Step, StepRecord, StepState
from konverge.model.proxy import Phase, ProxyOutcome, ProxyStatus
from konverge.model.revision import Revision
from konverge.model.target import Target
from konverge.operate.fleets import (
    WRITE_ATTEMPTS,
    apply_fleet,
    list_fleets,
    list_instances,
    load_fleet,
    parse_fleet,
    update_fleet_status,
    write_instance,
)
from konverge.operate.migrating import Site, add_evidence, run_step, set_phase
from konverge.operate.migrations import apply_migration, find_migration, load_migration
from konverge.operate.syncing import record_outcome

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SPEC = FleetSpec(proxy_service="s")
REVISION = Revision(number=4, content=b"{}", marker="m")


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


async def test_a_fleet_is_created_and_its_spec_set(kube: FakeKube) -> None:
    created = await apply_fleet(kube, "shop", "default", SPEC)
    changed = await apply_fleet(kube, "shop", "default", SPEC.replace(replicas=9))
    assert created.uid == changed.uid != ""
    assert (await load_fleet(kube, "shop", "default")).spec.replicas == 9


async def test_a_missing_fleet_names_those_that_are_there(kube: FakeKube) -> None:
    await apply_fleet(kube, "b", "default", SPEC)
    await apply_fleet(kube, "a", "default", SPEC)
    with pytest.raises(NotFound, match=r"No ProxyFleet default/shop; fleets here: default/a, default/b"):
        await load_fleet(kube, "shop", "default")


async def test_without_the_crds_a_fleet_is_refused_with_the_way_out(kube: FakeKube) -> None:
    kube.absent |= {resource for resource in KNOWN.values() if resource.group == "konverge.dev"}
    assert await list_fleets(kube) == []
    with pytest.raises(CheckRefused, match="konverge crds") as caught:
        await load_fleet(kube, "shop", "default")
    assert caught.value.reason == "CrdsMissing"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.proxyService"),
        ({"proxyService": "s", "replicas": -1}, "spec.replicas"),
        ({"proxyService": "s", "rollout": {"waveSize": 0}}, "spec.rollout.waveSize"),
        ({"proxyService": "s", "identity": {"keyType": "dsa"}}, "spec.identity.keyType"),
    ],
)
def test_an_invalid_fleet_names_object_and_field(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_fleet({"metadata": {"name": "shop", "namespace": "ns"}, "spec": spec})
    assert f"ProxyFleet ns/shop: {field}: " in caught.value.message


async def test_a_status_is_written_on_the_newest_object(kube: FakeKube) -> None:
    fleet = await apply_fleet(kube, "shop", "default", SPEC)
    raced = []

    def race(call: Call) -> None:
        if call.method == "PUT" and len(raced) < WRITE_ATTEMPTS - 1:
            raced.append(call)
            body = kube.one(PROXY_FLEETS, "shop")
            kube.put(PROXY_FLEETS, {**body, "status": {**body.get("status", {}), "lastRun": f"run-{len(raced)}"}})

    kube.before.append(race)
    await update_fleet_status(kube, fleet, lambda s: s.model_copy(update={"current_revision": 5}))
    status = (await load_fleet(kube, "shop", "default")).status
    assert (status.current_revision, status.last_run) == (5, f"run-{WRITE_ATTEMPTS - 1}")


async def test_a_status_that_is_always_beaten_ends_as_a_conflict(kube: FakeKube) -> None:
    fleet = await apply_fleet(kube, "shop", "default", SPEC)
    kube.fail(99, lambda: Conflict("stale"), lambda call: call.method == "PUT")
    with pytest.raises(Conflict):
        await update_fleet_status(kube, fleet, lambda s: s.model_copy(update={"current_revision": 5}))


async def test_a_status_that_is_as_it_was_is_not_written(kube: FakeKube) -> None:
    fleet = await apply_fleet(kube, "shop", "default", SPEC)
    await update_fleet_status(kube, fleet, lambda s: s)
    before = list(kube.writes)
    await update_fleet_status(kube, fleet, lambda s: s)
    assert kube.writes == before


async def record(kube: FakeKube, ok: bool, now: datetime, *, changed: bool = False) -> None:
    fleet = Fleet(name="shop", namespace="default", spec=SPEC)
    proxy = FakeGateways().add("p1")
    reason = "Configured" if ok else "ProxyUnreachable"
    outcome = ProxyOutcome(
        proxy="p1",
        ok=ok,
        outcome=Outcome(reason=reason, message="why"),
        phase=Phase.SERVING if ok else Phase.QUARANTINED,
        loaded_hash=REVISION.hash if ok else "",
        milliseconds=12,
        changed=changed,
    )
    await record_outcome(kube, fleet, proxy, REVISION, outcome, lambda: now)


async def read(kube: FakeKube) -> ProxyStatus:
    return (await list_instances(kube, Fleet(name="shop", namespace="default", spec=SPEC)))["p1"]


async def test_an_instance_is_owned_by_its_pod_and_says_what_is_loaded(kube: FakeKube) -> None:
    await record(kube, True, NOW, changed=True)
    owner = kube.one(PROXY_INSTANCES, "p1")["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"]) == ("Pod", "uid-p1")
    status = await read(kube)
    assert (status.loaded_revision, status.synced, status.traffic_ready) == (4, True, True)


async def test_a_condition_keeps_its_time_until_its_status_changes(kube: FakeKube) -> None:
    for minutes, ok in ((0, True), (1, True), (2, False), (3, False), (4, True)):
        await record(kube, ok, NOW + timedelta(minutes=minutes))
        condition = find_condition((await read(kube)).conditions, "TrafficReady")
        assert condition is not None
        expected = {0: 0, 1: 0, 2: 2, 3: 2, 4: 4}[minutes]
        assert condition.last_transition_time == NOW + timedelta(minutes=expected)


async def test_a_visit_that_pushes_nothing_keeps_the_last_push(kube: FakeKube) -> None:
    await record(kube, True, NOW, changed=True)
    await record(kube, True, NOW + timedelta(hours=1))
    status = await read(kube)
    assert (status.last_push, status.push_milliseconds) == (NOW, 12)


async def test_an_instance_that_somebody_else_writes_too_is_written_anew(kube: FakeKube) -> None:
    await record(kube, True, NOW)
    kube.fail(2, lambda: Conflict("stale"), lambda call: call.method == "PUT")
    await record(kube, False, NOW)
    assert not (await read(kube)).traffic_ready


async def test_an_unchanged_instance_is_not_written(kube: FakeKube) -> None:
    fleet, proxy = Fleet(name="shop", namespace="default", spec=SPEC), FakeGateways().add("p1")
    status = ProxyStatus(pod="p1", reason="Configured")
    await write_instance(kube, fleet, proxy, status)
    before = list(kube.writes)
    await write_instance(kube, fleet, proxy, status)
    assert kube.writes == before


@pytest.fixture
async def site(kube: FakeKube) -> Site:
    await apply_migration(kube, "kong", "default", MigrationSpec(fleet="shop", release="kong"))
    return Site(kube, Target(fleet="shop"), lambda: NOW)


async def test_applying_a_migration_again_keeps_its_journal(kube: FakeKube, site: Site) -> None:
    async def work(*_: object) -> str:
        return "seen"

    await run_step(site, "kong", Step.DISCOVER, work)
    again = await apply_migration(
        kube, "kong", "default", MigrationSpec(fleet="shop", release="kong", soak_seconds=9)
    )
    assert again.spec.soak_seconds == 9
    assert again.status.record(Step.DISCOVER).message == "seen"
    assert await find_migration(kube, "other", "default") is None


async def test_a_done_step_is_not_done_again(site: Site) -> None:
    done = []

    async def work(*_: object) -> str:
        done.append(1)
        return "done"

    for _ in range(3):
        await run_step(site, "kong", Step.DEPLOY, work)
    assert done == [1]


@pytest.mark.parametrize(
    ("error", "shown"), [(Invalid("field x is off"), "field x is off"), (KeyError("secret"), "unexpected KeyError")]
)
async def test_a_failed_step_is_journalled_and_done_again(site: Site, error: Exception, shown: str) -> None:
    async def fail(*_: object) -> str:
        raise error

    async def work(*_: object) -> str:
        return "fine"

    with pytest.raises(type(error)):
        await run_step(site, "kong", Step.SYNC, fail)
    record = (await load_migration(site.kube, "kong", "default")).status.record(Step.SYNC)
    assert (record.state, record.message) == (StepState.FAILED, shown)
    again = await run_step(site, "kong", Step.SYNC, work)
    assert again.status.record(Step.SYNC) == StepRecord(
        step=Step.SYNC, state=StepState.DONE, started=NOW, finished=NOW, message="fine"
    )


async def test_phase_evidence_and_journal_do_not_overwrite_each_other(site: Site) -> None:
    migration = await load_migration(site.kube, "kong", "default")
    await set_phase(site, migration, MigrationPhase.RUNNING, run="http://ui/1")
    await add_evidence(site, migration, {"a": "1"})
    await add_evidence(site, migration, {"b": "2"})
    await set_phase(site, migration, MigrationPhase.FAILED, "Why", "because")
    status = (await load_migration(site.kube, "kong", "default")).status
    assert (status.phase, status.reason, status.run) == (MigrationPhase.FAILED, "Why", "http://ui/1")
    assert status.evidence == {"a": "1", "b": "2"}
