"""A worker that died while it loaded is told from a load that takes long, by what is seen over time."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from scripted_gateway import ScriptedGateway, Seen, answer

from konverge.errors import Busy as BusyError
from konverge.kong.admin import AdminClient
from konverge.kong.explaining import find_error
from konverge.kong.loading import LONGEST_LOAD, LoadLock
from konverge.kong.outcomes import Busy, Stored, WorkerLost

Start = Callable[..., Awaitable[ScriptedGateway]]
BUSY = Busy(10.0, "Currently loading previous configuration")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lock(clock: Clock) -> LoadLock:
    return LoadLock(clock)


def test_one_refusal_shows_nothing(lock: LoadLock) -> None:
    assert lock.judge(BUSY) == BUSY
    assert lock.judge(Stored("a")) == Stored("a")


def test_refusals_that_no_load_explains(lock: LoadLock, clock: Clock) -> None:
    lock.judge(BUSY)
    clock.now += LONGEST_LOAD - 0.1
    assert lock.judge(BUSY) == BUSY
    clock.now += 0.1
    lost = lock.judge(BUSY)
    assert lost == WorkerLost(45.0, "nothing but refusals for 15 s")
    clock.now += 40
    assert lock.judge(Busy(4.5)) == WorkerLost(4.5, "nothing but refusals for 55 s"), "Kong tells the rest itself"


def test_a_load_in_between_begins_anew(lock: LoadLock, clock: Clock) -> None:
    lock.judge(BUSY)
    clock.now += LONGEST_LOAD
    lock.judge(Stored("a"))
    assert lock.judge(BUSY) == BUSY


def test_a_worker_that_was_replaced_is_believed_at_once(lock: LoadLock, clock: Clock) -> None:
    lock.note_workers([11, 12])
    lock.note_workers([11, 13])
    clock.now += 5
    assert lock.judge(BUSY) == WorkerLost(55.0, "one of its workers died lately")
    clock.now += 55
    assert lock.judge(Stored("a")) == Stored("a")
    assert lock.judge(BUSY) == BUSY, "its lock has ended"


@pytest.mark.parametrize("seen", [[21, 22], [11, 12], []])
def test_a_reload_is_no_death(lock: LoadLock, seen: list[int]) -> None:
    lock.note_workers([11, 12])
    lock.note_workers(seen)
    assert lock.judge(BUSY) == BUSY


def test_a_reload_after_a_death_is_forgiven_but_seen_again_is_not(lock: LoadLock) -> None:
    lock.note_workers([11, 12])
    lock.note_workers([11, 13])
    lock.note_workers([11, 13])
    assert isinstance(lock.judge(BUSY), WorkerLost), "the same list again changes nothing"


async def test_the_client_looks_at_the_workers_when_it_is_refused(gateways: Start) -> None:
    pids = [11, 12]

    def respond(seen: Seen) -> Any:
        if seen.method == "POST":
            pids[1] = 13
            return answer(429, b'{"message":"Currently loading previous configuration"}', Retry_After="10")
        status = {"configuration_hash": "0" * 32, "memory": {"workers_lua_vms": [{"pid": pid} for pid in pids]}}
        return answer(200, json.dumps(status).encode())

    gateway = await gateways(respond)
    async with AdminClient(gateway.url) as client:
        await client.status()
        outcome = await client.push(b"{}")
    assert isinstance(outcome, WorkerLost)
    assert 50 < outcome.retry_after <= 60
    error = find_error(outcome, "gw-1")
    assert isinstance(error, BusyError)
    assert (error.reason, error.delay) == ("WorkerLost", outcome.retry_after)
    assert sum(seen.method == "POST" for seen in gateway.seen) == 1
