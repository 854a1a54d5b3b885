"""Legacy proxies are left alone until their own counters say that nobody comes any more; who is busy is named."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from konverge.errors import Unavailable
from konverge.kube.resources import Object
from konverge.operate import draining
from konverge.operate.draining import wait_until_drained, wait_until_quiet


class StatusApi:
    """What Kong's Status API says at each look."""

    def __init__(self) -> None:
        self.looks = 0
        self.accepted: Callable[[int], int] = lambda look: 7
        self.writing: Callable[[int], int] = lambda look: 1
        self.broken = False

    async def answer(self, _: web.Request) -> web.Response:
        self.looks += 1
        if self.broken:
            return web.Response(text="no json")
        server = {"connections_accepted": self.accepted(self.looks), "connections_writing": self.writing(self.looks)}
        return web.json_response({"server": server})


@pytest.fixture
async def api(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StatusApi]:
    status = StatusApi()
    app = web.Application()
    app.router.add_get("/status", status.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setattr(draining, "STATUS_PORT", runner.addresses[0][1])
    monkeypatch.setattr(draining, "SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr(draining, "WINDOW", 0.1)
    yield status
    await runner.cleanup()


def pod(name: str, ip: str = "127.0.0.1") -> Object:
    return {"metadata": {"name": name}, "status": {"podIP": ip}}


async def test_silence_through_the_whole_window_is_quiet(api: StatusApi) -> None:
    await wait_until_quiet([pod("a")], 5.0)
    assert api.looks >= 5


async def test_who_still_gets_connections_is_named(api: StatusApi) -> None:
    api.accepted = lambda look: look * 10
    with pytest.raises(Unavailable, match="Still getting new connections after 0 s: busy") as caught:
        await wait_until_quiet([pod("busy")], 0.3)
    assert caught.value.reason == "LegacyStillServes"


async def test_it_becomes_quiet_when_the_last_one_has_noticed(api: StatusApi) -> None:
    api.accepted = lambda look: min(look, 20) * 10
    await wait_until_quiet([pod("a")], 5.0)
    assert api.looks > 20


async def test_a_long_request_is_waited_for(api: StatusApi) -> None:
    api.writing = lambda look: 2 if look < 15 else 1
    assert await wait_until_drained([pod("a")], 5.0) == []
    assert api.looks >= 15


async def test_a_request_that_does_not_end_is_told(api: StatusApi) -> None:
    api.writing = lambda look: 3
    assert await wait_until_drained([pod("socket")], 0.3) == ["socket"]


@pytest.mark.parametrize("broken", [False, True], ids=["refused", "no status"])
async def test_a_pod_that_is_gone_is_drained(api: StatusApi, broken: bool) -> None:
    api.broken = broken
    gone = pod("gone", "127.0.0.1" if broken else "127.0.0.99")
    await wait_until_quiet([gone], 5.0)
    assert await wait_until_drained([gone], 5.0) == []


async def test_no_pods_are_quiet() -> None:
    await wait_until_quiet([], 1.0)
    assert await wait_until_drained([], 1.0) == []
