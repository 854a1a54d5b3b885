from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType

from konverge.lab.echo.app import SERVED_BY, Echo
from konverge.lab.echo.serving import EchoSettings, listen, serve
from konverge.lab.pod import PodEnvironment

POD = PodEnvironment(name="shop-1", namespace="sample")


@dataclass
class Running:
    url: str
    session: aiohttp.ClientSession
    stop: asyncio.Event
    served: asyncio.Task[None]


@pytest.fixture
async def echo() -> AsyncIterator[Running]:
    stop, ports = asyncio.Event(), asyncio.get_running_loop().create_future()
    work = serve(Echo(POD), EchoSettings(port=0, grace=2.0), POD, stop=stop, announce=ports.set_result)
    served = asyncio.create_task(work)
    port = (await ports)[0]
    async with aiohttp.ClientSession() as session:
        yield Running(f"http://127.0.0.1:{port}", session, stop, served)
    stop.set()
    await served


async def test_it_says_what_reached_it(echo: Running) -> None:
    body = b"x" * 100_000
    async with echo.session.post(echo.url + "/a/b?c=d", data=body, headers={"X-A": "1"}) as response:
        seen = await response.json()
        assert response.headers[SERVED_BY] == "shop-1"
    assert (seen["pod"], seen["namespace"], seen["method"], seen["path"]) == ("shop-1", "sample", "POST", "/a/b")
    assert (seen["query"], seen["headers"]["x-a"]) == ("c=d", "1")
    assert (seen["body_length"], seen["body_sha256"]) == (100_000, hashlib.sha256(body).hexdigest())


@pytest.mark.parametrize(("code", "body"), [(204, ""), (418, "status 418\n"), (503, "status 503\n")])
async def test_it_answers_with_the_status_asked_for(echo: Running, code: int, body: str) -> None:
    async with echo.session.get(f"{echo.url}/status/{code}") as response:
        assert (response.status, await response.text()) == (code, body)


@pytest.mark.parametrize("query", ["/delay?s=-1", "/delay?s=x", "/stream?seconds=1e9", "/status/100"])
async def test_numbers_out_of_range_are_refused(echo: Running, query: str) -> None:
    async with echo.session.get(echo.url + query) as response:
        assert response.status == 400


async def test_a_late_answer_comes_late(echo: Running) -> None:
    begins = asyncio.get_running_loop().time()
    async with echo.session.get(echo.url + "/delay?s=0.05") as response:
        assert response.status == 200
    assert asyncio.get_running_loop().time() - begins >= 0.05


async def lines_of(response: aiohttp.ClientResponse) -> list[dict[str, object]]:
    return [orjson.loads(line) async for line in response.content]


async def test_a_stream_numbers_its_lines_and_marks_its_end(echo: Running) -> None:
    async with echo.session.get(echo.url + "/stream?seconds=0.1&interval=0.02") as response:
        lines = await lines_of(response)
    assert [line["seq"] for line in lines] == list(range(6))
    assert [line.get("end", False) for line in lines] == [False] * 5 + [True]


async def test_websocket_messages_come_back(echo: Running) -> None:
    async with echo.session.ws_connect(echo.url + "/ws") as socket:
        await socket.send_str("a")
        await socket.send_bytes(b"b")
        assert [(await socket.receive()).data for _ in range(2)] == ["a", b"b"]


async def test_leaving_finishes_what_was_begun(echo: Running) -> None:
    socket = await echo.session.ws_connect(echo.url + "/ws")
    stream = await echo.session.get(echo.url + "/stream?seconds=60&interval=0.01")
    await stream.content.readline()
    late = asyncio.create_task(echo.session.get(echo.url + "/delay?s=0.2"))
    async with echo.session.get(echo.url + "/healthz") as response:
        # The answer proves that the late request, sent before, has been accepted.
        assert (await response.json())["requests"] >= 3
    echo.stop.set()
    message = await socket.receive()
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
    lines = await lines_of(stream)
    assert not any(line.get("end") for line in lines)
    async with await late as response:
        assert response.status == 200
    await echo.served
    with pytest.raises(aiohttp.ClientConnectorError):
        await echo.session.get(echo.url + "/")


async def test_it_listens_on_both_addresses_of_its_pod() -> None:
    pod = PodEnvironment(name="shop-1", ip="127.0.0.1", loopback="127.0.0.2")
    runner, ports = await listen(Echo(pod), EchoSettings(port=0), pod)
    try:
        assert [address[0] for address in runner.addresses] == ["127.0.0.1", "127.0.0.2"]
        assert len(ports) == 2
    finally:
        await runner.cleanup()


async def test_a_taken_port_is_an_error_and_leaves_nothing_open() -> None:
    pod = PodEnvironment(ip="127.0.0.1", loopback="127.0.0.3")
    runner, ports = await listen(Echo(pod), EchoSettings(port=0), pod)
    try:
        other = PodEnvironment(ip="127.0.0.4", loopback="127.0.0.1")
        with pytest.raises(OSError, match="address already in use"):
            await listen(Echo(other), EchoSettings(port=ports[0]), other)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.4", ports[0])
    finally:
        await runner.cleanup()


def test_settings_come_from_the_environment() -> None:
    assert EchoSettings.read({}) == EchoSettings(8080, 20.0)
    assert EchoSettings.read({"PORT": "81", "ECHO_GRACE_SECONDS": "3"}) == EchoSettings(81, 3.0)
