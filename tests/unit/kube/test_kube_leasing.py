"""One of several candidates acts; one that cannot renew stops before anybody else may start."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from konverge.errors import Unavailable
from konverge.kube.client import KubeClient
from konverge.kube.leasing import GIVE_UP_SECONDS, LEASE_SECONDS, RENEW_SECONDS, Candidate
from konverge.kube.resources import LEASES
from tests.unit.kube.virtual_time import now, run_virtually
from tests.unit.operate.fake_kube import FakeKube


class Line(KubeClient):
    """One process's way to the API; it can be cut."""

    def __init__(self, kube: FakeKube) -> None:
        self._kube = kube
        self.cut = False
        self.slow = 0.0
        self.sent = 0

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        self.sent += 1
        await asyncio.sleep(self.slow)
        if self.cut:
            raise Unavailable("cut off")
        return await self._kube.request(method, path, **options)


class World:
    """Candidates for one lease, and a sample of who may act."""

    def __init__(self, count: int) -> None:
        kube = FakeKube()
        self.kube = kube
        self.lines = [Line(kube) for _ in range(count)]
        self.candidates = [Candidate(line, "shop", "default", f"c{i}") for i, line in enumerate(self.lines)]
        self.tasks = [asyncio.create_task(candidate.run()) for candidate in self.candidates]

    async def watch(self, seconds: float) -> None:
        end = now() + seconds
        while now() < end:
            assert sum(candidate.may_act for candidate in self.candidates) <= 1
            await asyncio.sleep(0.05)

    def leader(self) -> int | None:
        return next((i for i, candidate in enumerate(self.candidates) if candidate.may_act), None)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        for task in self.tasks:
            with suppress(asyncio.CancelledError):
                await task


def play(count: int, story: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        world = World(count)
        try:
            await story(world)
        finally:
            await world.close()

    run_virtually(run())


def test_the_margins_leave_room_between_the_old_and_the_new() -> None:
    assert RENEW_SECONDS * 2 < GIVE_UP_SECONDS < LEASE_SECONDS - RENEW_SECONDS


def test_one_of_three_leads_and_a_renewal_is_one_request() -> None:
    async def story(world: World) -> None:
        await world.watch(30)
        leader = world.leader()
        assert leader is not None
        assert all(candidate.decided for candidate in world.candidates)
        before = world.lines[leader].sent
        await world.watch(60)
        assert world.lines[leader].sent - before <= 60 / (0.9 * RENEW_SECONDS) + 1

    play(3, story)


@pytest.mark.parametrize("how", ["cut", "hang"])
def test_a_leader_that_cannot_renew_stops_and_another_takes_over(how: str) -> None:
    async def story(world: World) -> None:
        await world.watch(10)
        first = world.leader()
        assert first is not None
        lost = asyncio.create_task(world.candidates[first].wait_lost())
        started = now()
        world.lines[first].cut, world.lines[first].slow = how == "cut", 1e6 if how == "hang" else 0.0
        await lost
        assert now() - started <= GIVE_UP_SECONDS + 0.1
        await world.watch(2 * LEASE_SECONDS)
        second = world.leader()
        assert second not in (None, first)
        world.lines[first].cut, world.lines[first].slow = False, 0.0
        await world.watch(30)
        assert world.leader() == second

    play(2, story)


def test_a_release_lets_the_next_one_lead_at_once() -> None:
    async def story(world: World) -> None:
        await world.watch(10)
        first = world.leader()
        assert first is not None
        world.tasks[first].cancel()
        await world.watch(2 * RENEW_SECONDS)
        assert world.leader() not in (None, first)

    play(2, story)


def test_a_deleted_lease_is_made_anew_by_its_holder() -> None:
    async def story(world: World) -> None:
        await world.watch(10)
        first = world.leader()
        world.kube.drop(LEASES, "shop")
        await world.watch(10)
        assert world.leader() is not None
        assert first is not None

    play(1, story)


def test_success_after_a_failure_is_told() -> None:
    async def story(world: World) -> None:
        told: list[float] = []
        world.candidates[0].on_success = lambda: told.append(now())
        await world.watch(5)
        assert told == []
        world.lines[0].cut = True
        await world.watch(3)
        world.lines[0].cut = False
        await world.watch(5)
        assert len(told) == 1

    play(1, story)


@pytest.mark.parametrize("seed", range(3))
def test_random_partitions_never_make_two(seed: int) -> None:
    print(f"seed {seed}")

    async def story(world: World) -> None:
        rng = random.Random(seed)
        for _ in range(30):
            for line in world.lines:
                line.cut = rng.random() < 0.4
                line.slow = rng.choice((0.0, 0.0, 0.5, 3.0, 20.0))
            await world.watch(rng.uniform(0.5, 12.0))
        for line in world.lines:
            line.cut, line.slow = False, 0.0
        await world.watch(2 * LEASE_SECONDS + 30)
        assert world.leader() is not None

    play(3, story)
