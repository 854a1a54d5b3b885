"""legacy-migration as a Prefect flow: steps in order, done ones skipped, a failure gives the traffic back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import tasks.migrating
from flows.legacy_migration import legacy_migration, migration_rollback
from konverge.errors import Invalid, KonvergeError, Unavailable, VerificationFailed
from konverge.kube.resources import FLEET_MIGRATIONS
from konverge.model.migration import MigrationPhase, MigrationSpec, MigrationStatus, Step, StepState
from konverge.model.target import Target
from konverge.operate.migrations import load_migration
from tests.unit.operate.fake_kube import FakeKube

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.usefixtures("harness"),
    # Prefect's own; ours are errors everywhere else.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TARGET = Target(fleet="shop")


class World:
    """A migration whose steps only take notes; ``fail`` says what a step raises, and how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kube = FakeKube()
        spec = MigrationSpec(fleet="shop", release="kong")
        self.kube.put(FLEET_MIGRATIONS, {"metadata": {"name": "kong"}, "spec": spec.to_json()})
        self.done: list[str] = []
        self.fail: dict[str, list[BaseException]] = {}
        self.reached: dict[str, asyncio.Event] = {}

        @asynccontextmanager
        async def connect(_: Target) -> AsyncIterator[FakeKube]:
            yield self.kube

        monkeypatch.setattr(tasks.migrating, "connect", connect)
        monkeypatch.setattr(tasks.migrating, "STEPS", {step: self._work(step.value) for step in Step})
        monkeypatch.setattr(tasks.migrating, "restore_legacy", self._work("restore"))

    def _work(self, name: str) -> Callable[..., Any]:
        async def work(*_: Any) -> str:
            self.done.append(name)
            if name in self.reached:
                self.reached[name].set()
                await asyncio.sleep(60)
            if self.fail.get(name):
                raise self.fail[name].pop(0)
            return f"did {name}"

        return work

    async def status(self) -> MigrationStatus:
        return (await load_migration(self.kube, "kong", "default")).status

    async def states(self) -> dict[str, str]:
        return {record.step.value: record.state.value for record in (await self.status()).steps}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def migrate() -> Any:
    return await legacy_migration(target=TARGET, migration="kong")


async def test_the_steps_are_done_in_order_and_journalled(world: World) -> None:
    result = await migrate()
    assert world.done == [step.value for step in Step]
    assert result == {step.value: f"did {step.value}" for step in Step}
    assert set((await world.states()).values()) == {"Done"}
    status = await world.status()
    assert (status.phase, status.reason, status.message) == (MigrationPhase.COMPLETED, "Completed", "did finish")


async def test_started_again_it_skips_what_is_done(world: World) -> None:
    await migrate()
    world.done.clear()
    result = await migrate()
    assert world.done == []
    assert result["shift"] == "did shift"
    assert (await world.status()).phase is MigrationPhase.COMPLETED


@pytest.mark.parametrize("step", list(Step), ids=lambda step: step.value)
async def test_a_failing_step_ends_where_nothing_is_lost(world: World, step: Step) -> None:
    world.fail[step.value] = [VerificationFailed("it is not so", reason="NotSo")]
    with pytest.raises(VerificationFailed):
        await migrate()
    before = [s.value for s in Step][: list(Step).index(step) + 1]
    touched = step not in (Step.DISCOVER, Step.SNAPSHOT)
    assert world.done == [*before, *(["restore"] if touched else [])]
    status = await world.status()
    assert status.phase is (MigrationPhase.ROLLED_BACK if touched else MigrationPhase.FAILED)
    assert status.reason == "NotSo"
    assert status.message == f"{step.value}: it is not so" + ("; did restore" if touched else "")
    assert status.record(step).state is StepState.FAILED


async def test_what_may_work_later_is_tried_again(world: World) -> None:
    world.fail["sync"] = [Unavailable("not now")]
    await migrate()
    assert world.done.count("sync") == 2
    assert "restore" not in world.done


async def test_what_cannot_work_later_is_not_tried_again(world: World) -> None:
    world.fail["sync"] = [Invalid("never")]
    with pytest.raises(Invalid):
        await migrate()
    assert world.done.count("sync") == 1


async def test_a_failure_that_nobody_foresaw_gives_the_traffic_back_and_tells_no_secret(world: World) -> None:
    world.fail["shift"] = [KeyError("hunter2")]
    with pytest.raises(KeyError):
        await migrate()
    status = await world.status()
    assert world.done[-1] == "restore"
    assert (status.phase, status.reason) == (MigrationPhase.ROLLED_BACK, "Unexpected")
    assert "hunter2" not in str(status.to_json())


async def test_a_cancelled_run_gives_the_traffic_back(world: World) -> None:
    world.reached["shift"] = asyncio.Event()
    running = asyncio.create_task(migrate())
    await asyncio.wait_for(world.reached["shift"].wait(), 30)
    running.cancel()
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - Prefect may wrap the cancellation
        await running
    assert not isinstance(caught.value, KonvergeError)
    status = await world.status()
    assert world.done[-1] == "restore"
    assert (status.phase, status.reason) == (MigrationPhase.ROLLED_BACK, "Cancelled")
    assert status.message == "shift: cancelled; did restore"


async def test_a_rollback_that_fails_is_not_called_rolled_back(world: World) -> None:
    world.fail["shift"] = [Invalid("no")]
    world.fail["restore"] = [Invalid("the way back is barred")]
    with pytest.raises(Invalid, match="barred"):
        await migrate()
    assert (await world.status()).phase is MigrationPhase.ROLLING_BACK


async def test_an_operator_can_roll_back(world: World) -> None:
    assert await migration_rollback(target=TARGET, migration="kong") == "did restore"
    status = await world.status()
    assert (status.phase, status.reason, status.message) == (MigrationPhase.ROLLED_BACK, "Requested", "did restore")
