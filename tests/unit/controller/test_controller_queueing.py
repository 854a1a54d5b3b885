"""Changes that come close together are one, steady churn holds nothing up, and each key waits by its own clock."""

from __future__ import annotations

import asyncio
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from konverge.controller.queueing import PAUSES, ChangeQueue, Key, Pause, Signal
from tests.unit.kube.virtual_time import now, run_virtually

PAUSE = Pause(0.02, 1.0)


def wake_ups(changes: list[float], until: float = 20.0, pause: Pause = PAUSE) -> list[float]:
    """Return when a waiter is woken while changes come at these times."""

    async def story() -> list[float]:
        signal, woken = Signal(pause), []
        for at in changes:
            asyncio.get_running_loop().call_at(at, signal.set)
        while now() < until:
            if await signal.wait(until - now()):
                woken.append(now())
        return woken

    found: list[float] = run_virtually(story())
    return found


def test_without_a_change_the_time_passes() -> None:
    async def story() -> tuple[bool, float]:
        return await Signal().wait(5.0), now()

    assert run_virtually(story()) == (False, 5.0)


def test_one_change_is_acted_upon_at_once_when_all_is_quiet() -> None:
    assert [round(at, 3) for at in wake_ups([3.0, 9.0])] == [3.0 + PAUSE.shortest, 9.0 + PAUSE.shortest]


def test_a_burst_is_one() -> None:
    burst = [3.0 + 0.01 * i for i in range(20)]
    woken = wake_ups(burst)
    assert len(woken) == 1
    assert burst[-1] <= woken[0] <= burst[-1] + 3 * PAUSE.shortest


def test_two_changes_far_apart_are_two() -> None:
    assert len(wake_ups([1.0, 2.0])) == 2


def test_steady_churn_is_acted_upon_less_and_less_often_but_never_later_than_promised() -> None:
    woken = wake_ups([1.0 + 0.07 * i for i in range(200)])
    gaps = [later - earlier for earlier, later in itertools.pairwise(woken)]
    assert woken[0] <= 1.0 + 2 * PAUSE.shortest, "the first change does not wait for the churn to be noticed"
    assert max(gaps) <= PAUSE.longest + 0.07 + PAUSE.shortest
    assert len(woken) <= 30, "14 s of churn"
    assert all(gap >= 0.9 * PAUSE.longest for gap in gaps[6:-1])


def test_after_the_churn_it_is_prompt_again() -> None:
    woken = wake_ups([*(1.0 + 0.05 * i for i in range(100)), 12.0])
    assert round(woken[-1], 3) == 12.0 + PAUSE.shortest


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0.0, 8.0), min_size=1, max_size=30))
def test_every_change_is_followed_by_a_wake_up_in_time(changes: list[float]) -> None:
    woken = wake_ups(changes)
    for at in changes:
        assert any(at <= w <= at + PAUSE.longest + PAUSE.shortest for w in woken), (at, woken)


def test_a_change_before_the_wait_is_not_lost() -> None:
    async def story() -> bool:
        signal = Signal()
        signal.set()
        return await signal.wait(1.0)

    assert run_virtually(story())


def test_a_key_is_not_held_up_by_the_churn_of_another() -> None:
    async def story() -> float:
        queue, loop = ChangeQueue(), asyncio.get_running_loop()
        for step in range(200):
            loop.call_at(0.01 * step, queue.add, Key.SOURCES)
        loop.call_at(1.0, queue.add, Key.PROXIES)
        assert await queue.take(Key.PROXIES)
        assert not await queue.take(Key.IDENTITY, 0.5)
        return now()

    assert run_virtually(story()) <= 1.5 + PAUSES[Key.PROXIES].longest


def test_what_is_urgent_waits_for_nothing_more_and_the_next_change_does() -> None:
    async def story() -> list[float]:
        queue, loop, woken = ChangeQueue(), asyncio.get_running_loop(), []
        loop.call_at(1.0, lambda: queue.add(Key.PROXIES, urgent=True))
        loop.call_at(5.0, lambda: queue.add(Key.PROXIES))
        for _ in range(2):
            assert await queue.take(Key.PROXIES)
            woken.append(now())
        assert not await queue.take(Key.PROXIES, 1.0)
        return woken

    assert [round(at, 3) for at in run_virtually(story())] == [1.0, 5.0 + PAUSES[Key.PROXIES].shortest]


def test_what_is_urgent_ends_a_pause_that_was_begun_for_something_else() -> None:
    async def story() -> float:
        signal, loop = Signal(Pause(0.5, 5.0)), asyncio.get_running_loop()
        loop.call_at(1.0, signal.set)
        loop.call_at(1.2, lambda: signal.set(urgent=True))
        for step in range(20):
            loop.call_at(1.3 + 0.1 * step, signal.set)
        assert await signal.wait()
        return now()

    assert run_virtually(story()) <= 1.5 + 1e-6
