"""A reloaded proxy is back when it routes as before, calls itself ready and its pod is ready; else it is said why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fake_kube import FakeKube

from konverge.errors import Forbidden, Unavailable, VerificationFailed
from konverge.kong.reading import Readiness
from konverge.kube.resources import LEASES, POD_DISRUPTION_BUDGETS, PODS
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import Proxy
from konverge.operate import returning, settling
from konverge.operate.returning import Standing, find_spare, find_standing, wait_until_back
from konverge.operate.settling import SERIAL_ANNOTATION, announce_serial, wait_until_shown

PROXY = Proxy(name="a", namespace="default", ip="127.0.0.2")
FLEET = Fleet(name="shop", namespace="default", spec=FleetSpec(proxy_service="s"))


class Town:
    """One pod, its Status API and its data path; each look takes the next of what is scripted, the last stays."""

    def __init__(self) -> None:
        self.kube = FakeKube()
        self.ready: list[bool | None] = [True]
        self.answers: list[set[int]] = [{200}]
        self.pod: list[bool] = [True]
        self.looks = 0

    @asynccontextmanager
    async def status(self, url: str) -> AsyncIterator[Town]:
        assert url == "http://127.0.0.2:8100"
        self.looks += 1
        self.kube.put(PODS, self._pod(_next(self.pod)))
        yield self

    async def ask(self, *_: Any) -> frozenset[int]:
        return frozenset(_next(self.answers))

    async def readiness(self) -> Readiness:
        found = _next(self.ready)
        if found is None:
            raise Unavailable("no answer")
        return Readiness(found, "" if found else "router ready in 0 of 2 workers")

    def _pod(self, ready: bool) -> dict[str, Any]:
        conditions = [{"type": "Ready", "status": str(ready)}]
        return {"metadata": {"name": "a"}, "status": {"conditions": conditions}}


def _next(script: list[Any]) -> Any:
    return script.pop(0) if len(script) > 1 else script[0]


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Town:
    opened = Town()

    @asynccontextmanager
    async def open_status(url: str) -> AsyncIterator[Any]:
        async with opened.status(url):
            yield type("Status", (), {"ready": staticmethod(opened.readiness)})

    monkeypatch.setattr(returning, "StatusClient", open_status)
    monkeypatch.setattr(returning, "_ask", opened.ask)
    monkeypatch.setattr(returning, "PAUSE", 0.0)
    opened.kube.put(PODS, opened._pod(True))
    return opened


async def test_it_is_waited_until_all_three_hold(town: Town) -> None:
    before = await find_standing(town.kube, PROXY, "token")
    assert before == Standing(True, frozenset({200}))
    town.ready, town.answers, town.pod = [None, False, True], [{0, 200}, {200}], [True, True, True, False, True]
    await wait_until_back(town.kube, PROXY, before, "token")
    assert town.looks == 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ready": [False]}, "router ready in 0 of 2 workers"),
        ({"answers": [{404, 200}]}, r"fresh connections got HTTP \[200, 404\], before its reload \[200\]"),
        ({"pod": [False]}, "its pod is not ready"),
    ],
)
async def test_what_is_missing_is_said(
    town: Town, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(returning, "BACK_SECONDS", 0.02)
    for name, script in change.items():
        setattr(town, name, script)
    with pytest.raises(VerificationFailed, match=f"proxy a: not ready again 0 s after its reload: {said}") as caught:
        await wait_until_back(town.kube, PROXY, Standing(True, frozenset({200})), "token")
    assert caught.value.reason == "NotReadyAgain"


async def test_one_that_carries_no_traffic_is_not_waited_for(town: Town) -> None:
    town.kube.put(PODS, town._pod(False))
    before = await find_standing(town.kube, PROXY, "token")
    assert before == Standing(serving=False)
    await wait_until_back(town.kube, PROXY, before, "token")
    assert town.looks == 0
    town.kube.drop(PODS, "a")
    assert not (await find_standing(town.kube, PROXY, "token")).serving


@pytest.mark.parametrize(
    ("allowed", "proxies", "spare"), [(None, 9, 1), (1, 9, 1), (3, 9, 3), ("25%", 9, 2), ("5%", 9, 1), (0, 9, 1)]
)
async def test_a_disruption_budget_says_how_many_may_be_away(allowed: Any, proxies: int, spare: int) -> None:
    kube = FakeKube()
    if allowed is not None:
        kube.put(
            POD_DISRUPTION_BUDGETS, {"metadata": {"name": FLEET.deployment}, "spec": {"maxUnavailable": allowed}}
        )
    assert await find_spare(kube, FLEET, proxies) == spare
    kube.fail(1, lambda: Forbidden("no"), lambda call: call.resource == POD_DISRUPTION_BUDGETS)
    assert await find_spare(kube, FLEET, proxies) == 1


def lease(holder: str, serial: str = "", renewed: str = "1") -> dict[str, Any]:
    annotations = {SERIAL_ANNOTATION: serial} if serial else {}
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 1}
    return {"metadata": {"name": FLEET.controller, "annotations": annotations}, "spec": spec}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "PAUSE", 0.0)


async def test_the_controllers_word_is_waited_for(quick: None) -> None:
    kube, looks = FakeKube(), 0

    def hook(call: Any) -> None:
        nonlocal looks
        looks += call.method == "GET" and call.resource == LEASES
        kube.put(LEASES, lease("c", "7" if looks >= 3 else "6", renewed=str(looks)))

    kube.before.append(hook)
    await wait_until_shown(kube, FLEET, "7")
    assert looks == 3


@pytest.mark.parametrize("state", ["none", "given up", "not renewed"])
async def test_nobody_is_waited_for_where_nobody_acts(quick: None, state: str) -> None:
    kube = FakeKube()
    if state != "none":
        kube.put(LEASES, lease("" if state == "given up" else "dead", "6"))
    await wait_until_shown(kube, FLEET, "7")


async def test_a_controller_that_goes_on_with_the_old_one_is_named(
    quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "SHOWN_SECONDS", 0.05)
    kube = FakeKube()
    kube.put(LEASES, lease("c", "6"))
    with pytest.raises(VerificationFailed, match=r"controller c does not show .* serial 7, .*; it shows 6") as caught:
        await wait_until_shown(kube, FLEET, "7")
    assert caught.value.reason == "ControllerBehind"


async def test_the_serial_is_announced_once() -> None:
    kube = FakeKube()
    await announce_serial(kube, FLEET, "7")
    assert kube.writes == [], "without a lease there is nobody to tell"
    kube.put(LEASES, lease("c"))
    for _ in range(3):
        await announce_serial(kube, FLEET, "7")
    assert kube.writes == [f"PATCH leases/{FLEET.controller}"]
    await wait_until_shown(kube, FLEET, "7")
