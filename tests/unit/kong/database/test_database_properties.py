"""Whatever a database holds, and whatever it should hold: the operations lead there, and back.

Each round has its seed in its name; ``KONVERGE_SEED`` moves all of them, ``KONVERGE_ROUNDS`` makes more of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from database_documents import Maker
from kong_in_memory import TAG, KongInMemory, carry_out

from konverge.kong.database import Journal, apply, applying, plan, read_passwords, undo, validate

FIRST = int(os.environ.get("KONVERGE_SEED", "0"))
ROUNDS = int(os.environ.get("KONVERGE_ROUNDS", "12"))
SEEDS = range(FIRST, FIRST + ROUNDS)


@pytest.fixture
def kong() -> Iterator[KongInMemory]:
    kong = KongInMemory()
    yield kong
    kong.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_operations_lead_to_the_configuration_in_any_order_within_a_stage(
    kong: KongInMemory, seed: int
) -> None:
    maker = Maker(seed)
    for _ in range(3):
        document = maker.make()
        found = await plan(kong, document, TAG)
        assert await validate(kong, found.prepare) == ()
        await carry_out(kong, found, maker.random.shuffle)
        again = await plan(kong, document, TAG)
        assert again.empty, [operation.to_json() for operation in again.operations]


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_done_before_a_failure_is_taken_back(
    kong: KongInMemory, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "PAUSE", 0.0001)
    maker = Maker(seed)
    before, after = maker.make(), maker.make()
    await carry_out(kong, await plan(kong, before, TAG), maker.random.shuffle)
    held = kong.dump()
    found = await plan(kong, after, TAG)
    allowed = len(kong.writes) + maker.random.randint(0, len(found.operations))
    kong.spoil = lambda method, path: "lost" if method != "GET" and len(kong.writes) > allowed else ""
    journal = Journal()
    if (await apply(kong, found.prepare, journal)).ok:
        await apply(kong, found.remove, journal)
    kong.spoil = lambda method, path: ""
    undone = await undo(kong, journal, read_passwords(before))
    assert not undone.lost, undone.lost
    assert kong.dump() == held


@pytest.mark.parametrize("seed", SEEDS)
async def test_an_end_in_the_middle_is_made_good_by_the_next_run(kong: KongInMemory, seed: int) -> None:
    """Killed after any number of operations: the next run computes the difference anew."""
    maker = Maker(seed)
    before, after = maker.make(), maker.make()
    await carry_out(kong, await plan(kong, before, TAG), maker.random.shuffle)
    found = await plan(kong, after, TAG)
    stages = [*found.prepare, *found.remove]
    cut = stages[: maker.random.randint(0, len(stages))]
    if cut:
        cut[-1] = tuple(operation for operation in cut[-1] if maker.random.random() < 0.5)
    await apply(kong, cut, Journal())
    await carry_out(kong, await plan(kong, after, TAG), maker.random.shuffle)
    assert (await plan(kong, after, TAG)).empty
