"""How the controller's parts end: nothing goes on after the lease was lost, nothing ends without a word."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from konverge.controller import running
from konverge.controller.queueing import ChangeQueue
from konverge.controller.running import ControllerSettings, lead_once
from konverge.controller.stating import States
from konverge.model.fleet import Fleet, FleetSpec
from konverge.operate.instances import InstanceWriter
from tests.unit.operate.fake_kube import FakeKube

SETTINGS = ControllerSettings("shop", "default", ("127.0.0.1",), 0, "us")


class Slow:
    """A reconciler that is long under way when it is told to stop."""

    def __init__(self) -> None:
        self.site = SimpleNamespace(stopping=False)
        self.asked, self.ended = asyncio.Event(), False

    async def stop(self) -> None:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True

    async def abandon(self) -> None:
        """Nothing is under way."""

    async def close(self) -> None:
        """Nothing is open."""


async def test_whoever_loses_the_lease_while_it_stops_writes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, lost, stopping = Slow(), asyncio.Event(), asyncio.Event()

    async def work(*_args: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(running, "_declare_and_lead", work)
    holder: Any = SimpleNamespace(
        renew=lambda _identity: slow,
        candidate=SimpleNamespace(wait_lost=lost.wait),
        sources=SimpleNamespace(compiler=SimpleNamespace(rest=lambda: None)),
    )
    leading = asyncio.create_task(lead_once(holder, ChangeQueue(), SETTINGS, stopping))
    stopping.set()
    await asyncio.wait_for(slow.asked.wait(), 30)
    assert slow.site.stopping
    lost.set()
    await asyncio.wait_for(leading, 30)
    assert slow.ended, "its last states would be written beside those of the next leader"


async def test_a_writer_that_breaks_is_no_silent_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = 0

    async def run(_writer: InstanceWriter) -> None:
        nonlocal runs
        runs += 1
        if runs > 100:
            await asyncio.Event().wait()
        raise KeyError("status")

    monkeypatch.setattr(InstanceWriter, "run", run)
    states = States(FakeKube())
    states.open(Fleet(name="shop", namespace="default", spec=FleetSpec(proxy_service="s")))
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(states.run(), 30)
    assert caught.group_contains(KeyError)
    assert runs == 1
