"""What a sync publishes keeps its order, holds up no wave, and fails no sync."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import tasks.syncing
from konverge.decide.waving import Wave
from konverge.model.condition import Outcome
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import Phase, Proxy, ProxyOutcome
from konverge.model.revision import Revision
from konverge.operate.syncing import WaveReport
from tasks.syncing import FlowObserver, observing

FLEET = Fleet(name="shop", namespace="default", uid="u", spec=FleetSpec(proxy_service="s"))
REVISION = Revision(number=7, content=b"{}", marker="m")
LIMIT = 30


class Server:
    """A Prefect server that takes what it is sent when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = asyncio.Event()
        self.taken: list[str] = []
        self.failing = ""
        for name in ("acreate_table_artifact", "acreate_progress_artifact", "aupdate_progress_artifact"):
            monkeypatch.setattr(f"tasks.reporting.{name}", self._taking(name))
        monkeypatch.setattr("tasks.reporting.emit_event", lambda **_: None)

    def _taking(self, name: str) -> Any:
        async def take(artifact: str = "", *, key: str = "", progress: float = -1.0, **_: Any) -> str:
            await self.open.wait()
            if key and key == self.failing:
                raise ConnectionError("the server is gone")
            self.taken.append(key or f"{artifact} {progress:.0f}")
            return "artifact"

        return take


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


def report(name: str, count: int) -> WaveReport:
    proxies = tuple(Proxy(name=f"{name}-{n}", namespace="default", ip="10.0.0.1") for n in range(count))
    done = Outcome(reason="Configured", message="")
    outcomes = tuple(
        ProxyOutcome(proxy=p.name, ok=True, outcome=done, phase=Phase.SERVING, changed=True) for p in proxies
    )
    return WaveReport(Wave(0, name, proxies), 7, outcomes)


async def note(observer: FlowObserver) -> None:
    """Note a plan of two waves and both waves."""
    reports = [report("canary", 1), report("wave-1", 3)]
    await observer.note_plan(REVISION, [found.wave for found in reports])
    for found in reports:
        await observer.note_wave(found)


async def test_waves_do_not_wait_for_the_server_and_the_run_does(server: Server) -> None:
    told: list[dict[str, Any]] = []

    async def run() -> None:
        async with observing(FlowObserver(FLEET, "shop-sync", told.append)) as observer:
            await note(observer)
            noted.set()

    noted = asyncio.Event()
    work = asyncio.create_task(run())
    await asyncio.wait_for(noted.wait(), LIMIT)
    assert [entry["wave"] for entry in told] == ["canary", "wave-1"]
    assert (server.taken, work.done()) == ([], False)
    server.open.set()
    await asyncio.wait_for(work, LIMIT)
    assert server.taken == ["shop-sync", "shop-canary", "artifact 25", "shop-wave-1", "artifact 100"]


async def test_what_the_server_does_not_take_is_a_warning(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.failing = "shop-canary"
    server.open.set()
    with caplog.at_level(logging.WARNING):
        async with observing(FlowObserver(FLEET, "shop-sync", lambda _: None)) as observer:
            await note(observer)
    assert [record.message for record in caplog.records] == [
        "an artifact was not published: ConnectionError: the server is gone"
    ]
    assert server.taken == ["shop-sync", "artifact 25", "shop-wave-1", "artifact 100"]


async def test_a_server_that_is_silent_is_waited_for_only_so_long(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        async with observing(FlowObserver(FLEET, "shop-sync", lambda _: None)) as observer:
            await note(observer)
            raise ArithmeticError("the sync's own failure is the one that is told")

    monkeypatch.setattr(tasks.syncing, "PUBLISH_SECONDS", 0.0)
    with pytest.raises(ArithmeticError):
        await fail()
    # Prefect's own threads may have something to say as well.
    told = [record.message for record in caplog.records if "CancelledError" in record.message]
    assert len(told) == 5
    assert server.taken == []
