"""The shift: whatever is interrupted wherever, the Service never selects fewer ready proxies than the release had."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from fake_kube import Call, Killed
from fake_town import LEGACY, SERVICE, Town, gateways_of
from hypothesis import given, settings
from hypothesis import strategies as st

from konverge.errors import Unavailable, VerificationFailed
from konverge.kube.resources import PODS, SERVICES
from konverge.model.migration import Step, StepState
from konverge.model.revision import Revision
from konverge.operate import shifting, steps, workloads
from konverge.operate.shifting import TRAFFIC_LABEL

SECOND = Revision(number=0, content=b'{"second":1}', marker="second")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shifting, "POLL", 0.0)
    monkeypatch.setattr(shifting, "PROBE_SECONDS", 0.0)
    monkeypatch.setattr(workloads, "POLL", 0.0)
    monkeypatch.setattr(steps, "DEPLOY_SECONDS", 0.05)


@pytest.fixture
async def town(monkeypatch: pytest.MonkeyPatch) -> Town:
    opened = await Town().open()
    monkeypatch.setattr(steps, "open_gateways", gateways_of(opened))
    return opened


async def test_the_traffic_moves_and_nobody_is_missing_at_any_write(town: Town) -> None:
    await town.forward()
    fleet = await town.fleet()
    assert town.selector() == fleet.labels
    assert town.pods(LEGACY) == []
    assert town.lowest == 3, town.low_at


async def test_it_goes_back_and_forth(town: Town) -> None:
    for _ in range(2):
        await town.forward()
        await town.back()
        assert town.selector() == LEGACY
        assert len(town.serving()) == 3
    assert town.lowest == 3, town.low_at


async def test_one_proxy_joins_before_the_others(town: Town) -> None:
    fleet, joined = await town.fleet(), []

    def watch(call: Call) -> None:
        if call.resource == PODS and call.writes:
            joined.append(len([n for n in town.pods({TRAFFIC_LABEL: "shop"}) if n in town.pods(fleet.labels)]))

    town.kube.after.append(watch)
    probes: list[int] = []
    original = town.gateways.reach

    def reach(proxy: Any) -> Any:
        probes.append(max(joined, default=0))
        return original(proxy)

    town.gateways.reach = reach  # type: ignore[method-assign]
    await town.step(Step.SHIFT)
    assert probes[0] == 1
    assert max(joined) == 3


async def shake(town: Town, interruptions: list[tuple[str, int, bool]]) -> None:
    """Start forward or back, each killed at one of its writes (or not, where it has fewer)."""
    for direction, write, after in interruptions:
        town.kube.kill_at(write, after=after)
        with suppress(Killed):
            await (town.forward() if direction == "forward" else town.back())
        town.kube._dead = False
        for hooks in (town.kube.before, town.kube.after):
            hooks[:] = [hook for hook in hooks if "kill_at" not in getattr(hook, "__qualname__", "")]
        assert town.lowest == town.wanted, f"{town.lowest} ready proxies after {town.low_at}"


INTERRUPTIONS = st.lists(
    st.tuples(st.sampled_from(["forward", "back"]), st.integers(0, 24), st.booleans()), min_size=1, max_size=4
)


@settings(max_examples=60, deadline=None, print_blob=True)
@given(interruptions=INTERRUPTIONS, legacy=st.integers(1, 3), ends=st.sampled_from(["forward", "back"]))
def test_killed_anywhere_any_number_of_times_it_ends_where_it_should(
    interruptions: list[tuple[str, int, bool]], legacy: int, ends: str
) -> None:
    async def story() -> None:
        town = await Town(legacy, fleet=3).open()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(steps, "open_gateways", gateways_of(town))
            await shake(town, interruptions)
            await (town.forward() if ends == "forward" else town.back())
        fleet = await town.fleet()
        assert town.lowest == legacy, town.low_at
        assert town.selector() == (fleet.labels if ends == "forward" else LEGACY)
        assert len(town.serving()) == (3 if ends == "forward" else legacy)
        if ends == "forward":
            states = [(await town.migration()).status.record(s).state for s in (Step.SHIFT, Step.FINISH)]
            assert states == [StepState.DONE, StepState.DONE]
            assert town.pods(LEGACY) == []

    asyncio.run(story())


async def test_an_interrupted_rollback_does_not_let_the_next_run_take_the_legacy_proxies_away(town: Town) -> None:
    town.kube.fail(1, lambda: Unavailable("api"), lambda c: c.writes and c.resource.plural == "deployments")
    with pytest.raises(Unavailable):
        await town.forward()  # everything is moved, scaling to zero failed
    town.kube.heal()
    town.kube.after += [town._follow, town._measure]
    await town.back()
    await town.forward()
    assert town.lowest == 3, town.low_at
    assert town.selector() == (await town.fleet()).labels


async def test_finish_refuses_while_the_traffic_goes_to_the_legacy_proxies(town: Town) -> None:
    with pytest.raises(VerificationFailed, match=f"Service default/{SERVICE} does not select the fleet") as caught:
        await town.step(Step.FINISH)
    assert caught.value.reason == "TrafficNotMoved"
    assert len(town.pods(LEGACY)) == 3


async def test_a_rollback_says_which_steps_it_undid(town: Town) -> None:
    await town.forward()
    await town.back()
    status = (await town.migration()).status
    assert status.record(Step.SNAPSHOT).state is StepState.DONE
    for step in (Step.SHIFT, Step.DRAIN, Step.FINISH):
        assert status.record(step).state is StepState.PENDING
        assert "undone" in status.record(step).message


async def test_without_a_way_back_nothing_is_moved(town: Town) -> None:
    migration = await town.migration()
    with pytest.raises(VerificationFailed) as caught:
        await steps.shift(town.site, migration.replace(status=migration.status.replace(rollback_point=None)))
    assert caught.value.reason == "NoRollbackPoint"
    assert town.selector() == LEGACY


async def untouched_by(town: Town, spoil: Callable[[], None], reason: str) -> str:
    spoil()
    with pytest.raises((VerificationFailed, Unavailable)) as caught:
        await town.step(Step.SHIFT)
    assert caught.value.reason == reason
    assert town.lowest == 3, town.low_at
    return caught.value.message


async def test_a_fleet_that_is_not_whole_gets_no_traffic(town: Town) -> None:
    def spoil() -> None:
        town.kube.one(workloads.DEPLOYMENTS, "shop-gateway")["status"]["readyReplicas"] = 2

    await untouched_by(town, spoil, "DeploymentNotReady")
    assert town.selector() == LEGACY


async def test_unready_proxies_do_not_join(town: Town) -> None:
    def spoil() -> None:
        for index in range(3):
            town.kube.one(PODS, f"shop-gateway-{index}")["status"]["conditions"] = []

    message = await untouched_by(town, spoil, "NoReadyProxy")
    assert "default/shop" in message


async def test_a_proxy_that_stops_routing_stops_the_shift(town: Town) -> None:
    def spoil() -> None:
        town.gateways.proxies["shop-gateway-2"].routes = "something else"

    message = await untouched_by(town, spoil, "DataPathFailed")
    assert "shop-gateway-2" in message
    await town.back()
    assert town.selector() == LEGACY
    assert town.lowest == 3


async def test_a_change_of_the_sources_in_the_middle_does_not_stop_the_shift(town: Town) -> None:
    published: list[asyncio.Task[None]] = []

    def change(call: Call) -> None:
        if call.resource == SERVICES and call.method == "PATCH" and not published:
            published.append(asyncio.create_task(town.publish(SECOND)))

    town.kube.after.append(change)
    await town.forward()
    await published[0]
    assert (await town.fleet()).status.current_revision == 2
    assert town.lowest == 3, town.low_at


async def test_a_legacy_pod_that_dies_on_its_own_is_no_obstacle(town: Town) -> None:
    def die(call: Call) -> None:
        if call.resource == PODS and call.writes and call.name == "kong-kong-0" and len(town.serving()) > 3:
            town.kube.objects[PODS].pop(("default", "kong-kong-1"), None)

    town.kube.after.append(die)
    await town.step(Step.SHIFT)
    assert town.selector() == (await town.fleet()).labels


async def test_endpoints_that_do_not_follow_are_named(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shifting, "ENDPOINTS_SECONDS", 0.02)
    slices = town._slices()
    town.kube.virtual[shifting.ENDPOINT_SLICES] = lambda: slices
    with pytest.raises(Unavailable, match=r"shop-gateway-0 do not serve") as caught:
        await town.step(Step.SHIFT)
    assert caught.value.reason == "EndpointsNotFollowing"
