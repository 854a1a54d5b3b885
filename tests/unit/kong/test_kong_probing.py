"""A probe asks over new connections only and says what each of them got."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from scripted_gateway import CLOSE, ScriptedGateway, Seen, answer

from konverge.errors import UsageError
from konverge.kong.marker import build_request
from konverge.kong.probing import ProbeRequest, ProbeTarget, probe, probe_until_ok
from konverge.pki.authority import Authority, request_proxies
from konverge.pki.bundle import read_bundle
from konverge.pki.contexts import build_client_context, build_server_context

Start = Callable[..., Awaitable[ScriptedGateway]]
MARKER = ProbeRequest.of_marker(build_request("0123456789abcdef"), 42)


def at(gateway: ScriptedGateway) -> ProbeTarget:
    return ProbeTarget("127.0.0.1", gateway.port)


async def test_every_connection_is_new_and_counted(gateways: Start) -> None:
    gateway = await gateways(lambda seen: answer(200, b"42\n", "text/plain"))
    result = await probe(at(gateway), MARKER, connections=5)
    assert result.ok
    assert gateway.connections == len(result.results) == 5
    assert all(0 < one.seconds < 5 for one in result.results)
    seen = gateway.seen[0]
    assert (seen.path, seen.headers["host"]) == ("/.konverge/revision", "revision.konverge.internal")
    assert seen.headers["x-konverge-probe"] == "0123456789abcdef"


async def test_one_worker_behind_is_enough_to_fail(gateways: Start) -> None:
    gateway = await gateways(
        lambda seen: (
            answer(200, b"42")
            if seen.connection > 2
            else answer(404, b"{}")
            if seen.connection == 1
            else answer(200, b"41")
        )
    )
    result = await probe(at(gateway), MARKER, connections=4)
    assert not result.ok
    assert result.describe().startswith("2 of 4 connections as expected; ")
    assert "1: HTTP 404 instead of 200" in result.describe()
    assert "1: another body than expected" in result.describe()


async def test_until_ok_ends_with_the_first_good_round(gateways: Start) -> None:
    gateway = await gateways(lambda seen: answer(200 if len(gateway.seen) > 6 else 404, b"42"))
    result = await probe_until_ok(at(gateway), MARKER, within=5, connections=3, interval=0.001)
    assert result.ok
    assert gateway.connections == 9
    never = await probe_until_ok(at(gateway), ProbeRequest(status=599), within=0.05, connections=1)
    assert not never.ok


@pytest.mark.parametrize(
    ("raw", "ok"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n4\r\n1;x=y\r\n2\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n42", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n42", False),
        (b"garbage\r\n\r\nConnection: close", False),
        (CLOSE, False),
    ],
)
async def test_framing(gateways: Start, raw: Any, ok: bool) -> None:
    gateway = await gateways(lambda seen: raw)
    result = await probe(at(gateway), MARKER, connections=1)
    assert result.ok is ok
    assert bool(result.results[0].reason) is not ok


async def test_nobody_there_and_hanging(gateways: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    refused = await probe(ProbeTarget("127.0.0.1", port), ProbeRequest(), connections=2)
    assert {result.status for result in refused.results} == {0}
    assert "ConnectionRefused" in refused.describe()

    async def hang(seen: Seen) -> bytes:
        await asyncio.Event().wait()
        return b""

    hanging = await probe(at(await gateways(hang)), ProbeRequest(), connections=2, timeout=0.05)
    assert [result.reason for result in hanging.results] == ["TimedOut", "TimedOut"]


async def test_over_tls_with_verification(gateways: Start) -> None:
    now = datetime.now(UTC)
    authority = Authority.create("edge", now)
    bundle = read_bundle(authority.pem, now)
    server = authority.issue(request_proxies("proxy", "kong"), now)
    gateway = await gateways(lambda seen: answer(200, b"42"), tls=build_server_context(server))
    context = build_client_context(bundle)
    good = ProbeTarget("127.0.0.1", gateway.port, context, "a.proxy.kong.svc")
    assert (await probe(good, MARKER, connections=2)).ok
    bad = ProbeTarget("127.0.0.1", gateway.port, context, "elsewhere.example")
    assert "ServerNameMismatch" in (await probe(bad, MARKER, connections=1)).describe()


async def test_headers_cannot_be_smuggled(gateways: Start) -> None:
    gateway = await gateways(lambda seen: answer(200))
    with pytest.raises(UsageError):
        await probe(at(gateway), ProbeRequest(headers={"X": "a\r\nY: b"}))
    assert gateway.connections == 0
