"""config-sync as a flow: a harmful wave stops it, sick proxies do not, and the summary is written either way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter

import tasks.syncing
from flows.config_sync import config_sync
from flows.proxy_onboarding import proxy_onboarding
from konverge.errors import CheckRefused, NotFound, Unavailable, VerificationFailed
from konverge.kong.outcomes import Refused
from konverge.kube.leasing import RENEW_SECONDS
from konverge.kube.resources import LEASES, PODS
from konverge.model.fleet import Fleet, FleetSpec, FleetStatus, Rollout
from konverge.model.proxy import Proxy
from konverge.model.revision import Revision
from konverge.model.target import Target
from konverge.operate import configuring
from konverge.operate.fleets import apply_fleet, load_fleet
from tests.unit.operate.fake_gateways import FakeGateways
from tests.unit.operate.fake_kube import FakeKube

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.usefixtures("harness"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
TARGET = Target(fleet="shop")


class World:
    """Five proxies, and sources that render to ``content``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kube, self.gateways = FakeKube(), FakeGateways()
        self.content = b'{"one":1}'
        self.proxies = [self.gateways.add(f"p{i}") for i in range(5)]
        for proxy in self.proxies:
            self.kube.put(PODS, {"metadata": {"name": proxy.name}, "status": {"conditions": []}})

        @asynccontextmanager
        async def connect(_: Target) -> AsyncIterator[FakeKube]:
            yield self.kube

        @asynccontextmanager
        async def open_gateways(*_: Any) -> AsyncIterator[FakeGateways]:
            yield self.gateways

        async def discover(*_: Any) -> list[Proxy]:
            return self.proxies

        async def gather(*_: Any) -> list[Any]:
            return []

        monkeypatch.setattr(tasks.syncing, "connect", connect)
        monkeypatch.setattr(tasks.syncing, "open_gateways", open_gateways)
        monkeypatch.setattr(tasks.syncing, "discover_proxies", discover)
        monkeypatch.setattr(tasks.syncing, "gather_sources", gather)
        monkeypatch.setattr(tasks.syncing, "compile_revision", self._compile)
        monkeypatch.setattr(configuring, "LONGEST_WAIT", 0.0)
        monkeypatch.setattr(configuring, "PROBE_SECONDS", 0.0)

    def _compile(self, _fleet: Fleet, _sources: Any) -> tuple[Revision, Any]:
        draft = Revision(number=0, content=self.content, marker=self.content.decode())
        self.gateways.markers[draft.hash] = draft.marker
        return draft, type("Rendered", (), {"problems": ()})()

    async def open(self, **spec: Any) -> World:
        rollout = Rollout(canary=1, wave_size=2)
        await apply_fleet(self.kube, "shop", "default", FleetSpec(proxy_service="s", rollout=rollout, **spec))
        return self

    def pushes(self) -> list[int]:
        return [self.gateways.proxies[p.name].pushes for p in self.proxies]

    def loaded(self) -> set[bytes]:
        """What the proxies route by."""
        return {fake.routes.encode() for fake in self.gateways.proxies.values()}

    async def status(self) -> FleetStatus:
        return (await load_fleet(self.kube, "shop", "default")).status


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return await World(monkeypatch).open()


async def test_every_proxy_is_synced_in_waves(world: World) -> None:
    counts = await config_sync(target=TARGET, author="me")
    assert counts == {
        "revision": 1,
        "verdict": "Completed",
        "total": 5,
        "synced": 5,
        "drifted": 0,
        "quarantined": 0,
        "ready": 5,
    }
    assert (await world.status()).last_good_revision == 1


async def test_a_sick_proxy_holds_nobody_back(world: World) -> None:
    world.gateways.proxies["p1"].sick = Unavailable("down", reason="ProxyUnreachable")
    counts = await config_sync(target=TARGET)
    assert (counts["synced"], counts["quarantined"]) == (4, 1)


async def test_a_harmful_revision_stops_and_the_status_says_what_is_loaded(world: World) -> None:
    await config_sync(target=TARGET)
    world.content = b'{"two":2}'
    for fake in world.gateways.proxies.values():
        fake.refusal = lambda content: Refused() if content == world.content else None
    with pytest.raises(VerificationFailed, match="stopped at canary"):
        await config_sync(target=TARGET)
    assert world.pushes() == [2, 1, 1, 1, 1]
    status = await world.status()
    assert (status.current_revision, status.last_good_revision) == (1, 1)
    assert (status.counts.synced, status.counts.drifted) == (5, 0)


async def test_harm_that_shows_late_is_taken_back_by_the_flow(world: World) -> None:
    await config_sync(target=TARGET)
    world.content = b'{"two":2}'
    world.gateways.proxies["p3"].stuck = True
    with pytest.raises(VerificationFailed, match="have revision 1 again"):
        await config_sync(target=TARGET)
    assert world.loaded() == {b'{"one":1}'}
    assert (await world.status()).current_revision == 1


@pytest.mark.parametrize("sharded", [2, 3])
async def test_shards_take_over_after_the_canary(world: World, sharded: int) -> None:
    counts = await config_sync(target=TARGET, shards=sharded)
    assert (counts["verdict"], counts["synced"]) == ("Completed", 5)
    assert world.pushes() == [1] * 5


async def test_harm_in_one_shard_is_taken_back_everywhere(world: World) -> None:
    await config_sync(target=TARGET)
    world.content = b'{"two":2}'
    world.gateways.proxies["p3"].stuck = True
    with pytest.raises(VerificationFailed, match="proxy p3"):
        await config_sync(target=TARGET, shards=2)
    assert world.loaded() == {b'{"one":1}'}


async def test_a_refused_canary_starts_no_shard(world: World) -> None:
    await config_sync(target=TARGET)
    world.content = b'{"two":2}'
    for fake in world.gateways.proxies.values():
        fake.refusal = lambda content: Refused() if content == world.content else None
    with pytest.raises(VerificationFailed, match="stopped at canary"):
        await config_sync(target=TARGET, shards=2)
    assert world.pushes() == [2, 1, 1, 1, 1]


async def test_a_second_run_makes_the_first_one_end_between_two_waves(world: World) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    first = world.gateways.proxies["p0"]
    original = first.push

    async def push(content: bytes) -> Any:
        entered.set()
        await leave.wait()
        return await original(content)

    first.push = push  # type: ignore[method-assign]
    one = asyncio.create_task(config_sync(target=TARGET))
    await asyncio.wait_for(entered.wait(), 60)
    world.content = b'{"two":2}'
    two = asyncio.create_task(config_sync(target=TARGET))
    async with asyncio.timeout(60):
        while not any(body["metadata"]["name"] == "shop-sync-next" for body in world.kube.all(LEASES)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        seen = world.kube.one(LEASES, "shop-sync-next")["metadata"]["resourceVersion"]
        while world.kube.one(LEASES, "shop-sync-next")["metadata"]["resourceVersion"] == seen:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    # The running sync looks at the Lease every second.
    await asyncio.sleep(2 * RENEW_SECONDS)
    leave.set()
    counts = await asyncio.wait_for(one, 60)
    assert counts["verdict"] == "Superseded"
    counts = await asyncio.wait_for(two, 60)
    assert (counts["revision"], counts["verdict"], counts["synced"]) == (2, "Completed", 5)
    assert world.loaded() == {b'{"two":2}'}


async def test_task_runs_do_not_grow_with_the_fleet_and_every_proxy_is_shown(world: World) -> None:
    for number in range(5, 60):
        world.proxies.append(world.gateways.add(f"p{number}"))
    await config_sync(target=TARGET)
    async with get_client() as client:
        runs = await client.read_flow_runs(limit=200)
        run = max((r for r in runs if r.name == "sync-shop"), key=lambda r: r.created or 0)
        key = {"flow_run_id": {"any_": [str(run.id)]}}
        artifacts = await client.read_artifacts(artifact_filter=ArtifactFilter.model_validate(key), limit=200)
    tables = [a for a in artifacts if a.type == "table"]
    shown = {row["proxy"] for table in tables for row in json.loads(str(table.data))}
    assert shown == {p.name for p in world.proxies}
    assert len(tables) <= 40
    progress = [a for a in artifacts if a.type == "progress"]
    assert [float(str(a.data)) for a in progress] == [100.0]


async def test_a_stored_revision_can_be_pushed_again(world: World) -> None:
    await config_sync(target=TARGET)
    world.content = b'{"two":2}'
    await config_sync(target=TARGET)
    counts = await config_sync(target=TARGET, revision=1)
    assert (counts["revision"], counts["synced"]) == (1, 5)
    assert {fake.routes for fake in world.gateways.proxies.values()} == {'{"one":1}'}


async def test_an_unknown_revision_is_named(world: World) -> None:
    await config_sync(target=TARGET)
    with pytest.raises(NotFound, match="has no revision 9; it has: 1"):
        await config_sync(target=TARGET, revision=9)
    assert world.pushes() == [1] * 5


async def test_a_paused_fleet_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World(monkeypatch).open(paused=True)
    with pytest.raises(CheckRefused, match="is paused"):
        await config_sync(target=TARGET)
    assert world.pushes() == [0] * 5


async def test_named_proxies_are_onboarded(world: World) -> None:
    await config_sync(target=TARGET)
    assert await proxy_onboarding(target=TARGET, pods=["p3"]) == {"p3": "Configured"}
    assert await proxy_onboarding(target=TARGET) == {}
