"""The page over HTTP: a strict policy, copies that are compared, a stream that goes on where it stopped and ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from test_page_board import Source, status

from konverge.controller.page import serving
from konverge.controller.page.board import Board
from konverge.controller.page.serving import ASSETS, add_page

Client = TestClient[web.Request, web.Application]


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def client(source: Source) -> AsyncIterator[Client]:
    app = web.Application()
    add_page(app, source)
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.fixture
def board(client: Client) -> Board:
    assert client.app is not None
    return client.app[serving.BOARD]


@pytest.mark.parametrize("path", [*ASSETS, "/api/fleet"])
async def test_everything_has_the_policy_and_a_tag(client: Client, path: str) -> None:
    async with client.get(path) as answer:
        assert answer.status == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        tag = answer.headers["ETag"]
    async with client.get(path, headers={"If-None-Match": tag}) as again:
        assert (again.status, await again.read(), again.headers["ETag"]) == (304, b"", tag)


async def test_the_assets_load_nothing_from_elsewhere_and_nothing_inline(client: Client) -> None:
    for path in ASSETS:
        text = await (await client.get(path)).text()
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text.replace('"https:"', "")
    page = await (await client.get("/")).text()
    assert "<style" not in page
    assert "onclick" not in page
    script = await (await client.get("/page.js")).text()
    assert not [
        word for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(") if word in script
    ]


async def test_a_change_gives_another_tag(client: Client, source: Source) -> None:
    tag = (await client.get("/api/fleet")).headers["ETag"]
    source.proxies["p0"] = status(9)
    answer = await client.get("/api/fleet", headers={"If-None-Match": tag})
    assert answer.status == 200
    document = await answer.json()
    assert document["proxies"][0]["revision"] == 9


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nothing_can_be_changed(client: Client, method: str) -> None:
    for path in ("/", "/api/fleet", "/events"):
        assert (await client.request(method, path)).status == 405


async def read_event(answer: object) -> dict[str, str]:
    """The fields of the next event; comments are left out."""
    fields: dict[str, str] = {}
    while True:
        line = (await asyncio.wait_for(answer.content.readline(), 30)).decode().rstrip("\n")  # type: ignore[attr-defined]
        if not line and fields:
            return fields
        name, _, value = line.partition(": ")
        if name and value:
            fields[name] = value


async def test_the_stream_tells_what_changes_and_goes_on(client: Client, source: Source, board: Board) -> None:
    async with client.get("/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert (await read_event(answer))["event"] == "snapshot"
        source.proxies["p1"] = status(4)
        first = await read_event(answer)
        assert first["event"] == "change"
    source.proxies["p1"] = status(5)
    async with client.get("/events", headers={"Last-Event-ID": first["id"]}) as answer:
        event = await read_event(answer)
        assert (event["event"], '"revision":5' in event["data"]) == ("change", True)


async def test_a_quiet_stream_has_a_heartbeat_and_ends_with_the_server(
    client: Client, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEARTBEAT_SECONDS", 0.01)
    async with client.get("/events") as answer:
        await read_event(answer)
        while (await asyncio.wait_for(answer.content.readline(), 30)) != b":\n":
            pass
        board.close()
        rest = await asyncio.wait_for(answer.content.read(), 30)
        assert b"data" not in rest
    assert board.readers == set()


async def test_too_many_readers_are_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MOST_READERS", 1)
    async with client.get("/events") as answer:
        await read_event(answer)
        refused = await client.get("/events")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "10")


async def test_a_source_that_fails_does_not_end_the_stream(
    client: Client, source: Source, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "REFRESH_SECONDS", 0.01)
    failed = asyncio.Event()
    good = source.snapshot

    def fail() -> object:
        failed.set()
        raise RuntimeError("bug")

    async with client.get("/events") as answer:
        await read_event(answer)
        source.snapshot = fail  # type: ignore[method-assign,assignment]
        await asyncio.wait_for(failed.wait(), 30)
        source.proxies["p3"] = status(8)
        source.snapshot = good  # type: ignore[method-assign]
        assert '"revision":8' in (await read_event(answer))["data"]


async def test_a_reader_that_goes_away_is_forgotten(client: Client, board: Board, source: Source) -> None:
    async with ClientSession() as session, session.get(client.make_url("/events")) as answer:
        await read_event(answer)
        assert len(board.readers) == 1
    deadline = asyncio.get_running_loop().time() + 30
    while board.readers and asyncio.get_running_loop().time() < deadline:
        source.proxies["p0"] = status(int(asyncio.get_running_loop().time() * 1000))
        board.refresh()
        await asyncio.sleep(0.01)
    assert board.readers == set()
