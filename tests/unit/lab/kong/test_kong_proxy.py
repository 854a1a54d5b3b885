"""The proxy against real upstreams: retries, errors, streaming, tunnels, plugins, certificates."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from typing import Any

import httpx
import pytest
from kong_lab import HOST, SERVER, Authority, Backend, configuration, get, post, running, url

from konverge.lab.kong.node import StandInKong


async def loaded(node: StandInKong, document: dict[str, Any]) -> None:
    response = await post(node, document)
    assert response.status_code == 201, response.text


def error(response: httpx.Response) -> str:
    body = response.json()
    assert body["request_id"] == response.headers["x-kong-request-id"]
    return str(body["message"])


async def test_connections_to_upstreams_are_kept() -> None:
    async with Backend() as backend, running() as node:
        await loaded(node, configuration(backend.port))
        for _ in range(5):
            assert (await get(node, "proxy", "/r/x")).json()["target"] == "/x"
        assert backend.connections == 1


async def test_a_stale_kept_connection_is_not_the_clients_problem() -> None:
    async def answer(_m: str, _t: str, _f: dict[str, str], _b: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return False

    async with Backend(answer) as backend, running() as node:
        await loaded(node, configuration(backend.port))
        for method in ("GET", "POST", "GET", "POST"):
            assert (await get(node, "proxy", "/r", method=method)).status_code == 200


async def test_retries_only_what_is_harmless_to_repeat() -> None:
    async def answer(_m: str, _t: str, _f: dict[str, str], _b: bytes, _w: asyncio.StreamWriter) -> bool:
        return False

    async with Backend(answer) as backend, running() as node:
        await loaded(node, configuration(backend.port, retries=2))
        response = await get(node, "proxy", "/r")
        assert (response.status_code, error(response)) == (
            502,
            "An invalid response was received from the upstream server",
        )
        assert len(backend.seen) == 3
        assert "x-kong-upstream-latency" in response.headers
        backend.seen.clear()
        assert (await get(node, "proxy", "/r", method="POST", content=b"x")).status_code == 502
        assert len(backend.seen) == 1


async def test_timeouts() -> None:
    async def answer(_m: str, _t: str, _f: dict[str, str], _b: bytes, _w: asyncio.StreamWriter) -> bool:
        await asyncio.get_running_loop().create_future()
        return False

    async with Backend(answer) as backend, running() as node:
        await loaded(node, configuration(backend.port, retries=0, read_timeout=50))
        response = await get(node, "proxy", "/r")
        assert (response.status_code, error(response)) == (504, "The upstream server is timing out")


async def test_upstream_without_targets_and_unknown_host() -> None:
    async with running() as node:
        document = configuration(1, url="http://up") | {"upstreams": [{"name": "up"}]}
        await loaded(node, document)
        response = await get(node, "proxy", "/r")
        assert (response.status_code, error(response)) == (503, "failure to get a peer from the ring-balancer")


@pytest.mark.parametrize(
    ("accept", "kind", "begin"),
    [
        ("text/html", "text/html; charset=utf-8", "<!doctype html>"),
        ("text/plain", "text/plain; charset=utf-8", "no Route matched"),
        ("application/xml;q=0.9, image/png", "application/xml; charset=utf-8", "<?xml"),
        ("*/*", "application/json; charset=utf-8", "{\n"),
    ],
)
async def test_errors_come_in_the_format_that_is_asked_for(accept: str, kind: str, begin: str) -> None:
    async with running() as node:
        response = await get(node, "proxy", "/none", headers={"Accept": accept})
        assert (response.status_code, response.headers["content-type"]) == (404, kind)
        assert response.text.startswith(begin)


async def test_both_ways_are_streamed() -> None:
    passed = asyncio.Event()

    async def answer(_m: str, _t: str, _f: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await writer.drain()
        await passed.wait()
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        return True

    async with Backend(answer) as backend, running() as node:
        document = configuration(backend.port)
        document["services"][0]["routes"][0]["request_buffering"] = False
        await loaded(node, document)

        async def pieces() -> Any:
            for _ in range(40):
                yield b"x" * 50_000

        async with (
            httpx.AsyncClient(verify=False, timeout=10) as client,
            client.stream("POST", url(node, "proxy", "/r"), content=pieces()) as response,
        ):
            received = b""
            async for piece in response.aiter_raw():
                if not received:
                    assert piece.startswith(b"first"), "the first piece came before the last was there"
                    passed.set()
                received += piece
            assert len(received) == 5 + 2_000_000


async def test_a_truncated_upstream_answer_is_seen_as_truncated() -> None:
    async def answer(_m: str, _t: str, _f: dict[str, str], _b: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        return False

    async with Backend(answer) as backend, running() as node:
        await loaded(node, configuration(backend.port))
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await get(node, "proxy", "/r")


async def test_a_client_that_is_gone_ends_the_request_to_the_upstream() -> None:
    arrived = asyncio.Event()

    async def answer(_m: str, _t: str, _f: dict[str, str], _b: bytes, _w: asyncio.StreamWriter) -> bool:
        arrived.set()
        await asyncio.get_running_loop().create_future()
        return False

    async with Backend(answer) as backend, running() as node:
        await loaded(node, configuration(backend.port))
        _, writer = await asyncio.open_connection(HOST, node.port("proxy"))
        writer.write(b"GET /r HTTP/1.1\r\nHost: x\r\n\r\n")
        await arrived.wait()
        assert len(node.gateway.pool._open) == 1
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        async with asyncio.timeout(10):
            while node.gateway.pool._open or node.stats.busy:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_websocket_tunnel() -> None:
    async def answer(_m: str, _t: str, fields: dict[str, str], _b: bytes, writer: asyncio.StreamWriter) -> bool:
        assert (fields["connection"], fields["upgrade"]) == ("upgrade", "websocket")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
        await writer.drain()
        await asyncio.sleep(0)
        return False

    async with Backend(answer) as backend, running() as node:
        await loaded(node, configuration(backend.port))
        reader, writer = await asyncio.open_connection(HOST, node.port("proxy"))
        writer.write(b"GET /r HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert await reader.read() == b"hello"
        writer.close()


@pytest.mark.parametrize(("code", "location"), [(426, None), (301, "https://x.example.com/r?a=1")])
async def test_https_only_routes(code: int, location: str | None) -> None:
    async with running() as node:
        document = configuration(1)
        document["services"][0]["routes"][0] |= {"protocols": ["https"], "https_redirect_status_code": code}
        await loaded(node, document)
        response = await get(node, "proxy", "/r?a=1", headers={"Host": "x.example.com"})
        assert response.status_code == code
        assert response.headers.get("location") == location
        if code == 426:
            assert response.headers["upgrade"] == "TLS/1.2, HTTP/1.1"
            assert error(response) == "Please use HTTPS protocol"


async def test_forwarded_headers_and_preserve_host() -> None:
    async with Backend() as backend, running() as node:
        document = configuration(backend.port)
        document["services"][0]["routes"][0] |= {"preserve_host": True, "strip_path": False}
        await loaded(node, document)
        given = {"Host": "a.example.com", "X-Forwarded-For": "9.9.9.9", "Connection": "x-drop", "X-Drop": "1"}
        seen = (await get(node, "proxy", "/r/x?y=1", headers=given)).json()
        headers = seen["headers"]
        assert seen["target"] == "/r/x?y=1"
        assert headers["host"] == "a.example.com"
        assert headers["x-forwarded-for"] == f"9.9.9.9, {HOST}"
        assert headers["x-forwarded-path"] == "/r/x"
        assert "x-forwarded-prefix" not in headers
        assert "x-drop" not in headers


async def test_plugins_stack_by_scope_and_priority() -> None:
    async with Backend() as backend, running() as node:
        limits = [{"name": "rate-limiting", "config": {"minute": 100}}]
        document = configuration(backend.port, plugins=[{"name": "key-auth"}, *limits])
        document["consumers"] = [
            {
                "username": "gold",
                "keyauth_credentials": [{"key": "g"}],
                "acls": [{"group": "vip"}],
                "plugins": [{"name": "rate-limiting", "config": {"minute": 1}}],
            },
            {"username": "tin", "keyauth_credentials": [{"key": "t"}]},
        ]
        document["plugins"] = [{"name": "acl", "config": {"allow": ["vip"]}}]
        await loaded(node, document)
        assert (await get(node, "proxy", "/r")).status_code == 401
        tin = await get(node, "proxy", "/r", headers={"apikey": "t"})
        assert (tin.status_code, error(tin)) == (403, "You cannot consume this service")
        gold = await get(node, "proxy", "/r?apikey=g")
        assert gold.headers["x-ratelimit-limit-minute"] == "1", "the limit of the consumer wins over the service's"
        assert gold.json()["headers"]["x-consumer-groups"] == "vip"
        assert (await get(node, "proxy", "/r?apikey=g")).status_code == 429
        await loaded(node, document)
        assert (await get(node, "proxy", "/r?apikey=g")).status_code == 429, "counters survive a new configuration"


async def test_small_plugins() -> None:
    async with Backend() as backend, running() as node:

        def route(name: str, plugin: str, **config: Any) -> dict[str, Any]:
            return {"name": name, "paths": [f"/{name}"], "plugins": [{"name": plugin, "config": config}]}

        routes = [
            route("stop", "request-termination", status_code=418, message="no tea"),
            route("ip", "ip-restriction", deny=["127.0.0.0/8"]),
            route("size", "request-size-limiting", allowed_payload_size=1, size_unit="bytes"),
            route("go", "redirect", location="https://new.example.com/base", keep_incoming_path=True),
            route("id", "correlation-id", header_name="X-Id", generator="uuid", echo_downstream=True),
            route("rt", "response-transformer", add={"headers": ["x-more:1"]}, remove={"headers": ["via"]}),
            route("basic", "basic-auth"),
        ]
        document = configuration(backend.port, routes=routes)
        document["consumers"] = [{"username": "u", "basicauth_credentials": [{"username": "n", "password": "p"}]}]
        await loaded(node, document)
        stop = await get(node, "proxy", "/stop")
        assert (stop.status_code, error(stop)) == (418, "no tea")
        denied = await get(node, "proxy", "/ip")
        assert (denied.status_code, error(denied)) == (403, f"IP address not allowed: {HOST}")
        assert (await get(node, "proxy", "/size", method="POST", content=b"xx")).status_code == 413
        moved = await get(node, "proxy", "/go/x?y=1")
        assert moved.headers["location"] == "https://new.example.com/go/x?y=1"
        tagged = await get(node, "proxy", "/id")
        assert tagged.headers["x-id"] == tagged.json()["headers"]["x-id"]
        more = await get(node, "proxy", "/rt")
        assert more.headers["x-more"] == "1"
        assert "via" not in more.headers
        assert (await get(node, "proxy", "/basic", auth=("n", "p"))).json()["headers"]["x-consumer-username"] == "u"
        refused = await get(node, "proxy", "/basic", auth=("n", "wrong"))
        assert refused.headers["www-authenticate"] == 'Basic realm="service"'


async def test_certificates_by_server_name(tmp_path: Any) -> None:
    ca = Authority.make(tmp_path, "ca")
    crt, key = ca.issue("shop", SERVER, dns=("shop.example.com",))
    async with Backend() as backend, running(tls=True) as node:
        certificate = {"cert": crt.read_text(), "key": key.read_text(), "snis": [{"name": "shop.example.com"}]}
        await loaded(node, configuration(backend.port) | {"certificates": [certificate]})
        context = ssl.create_default_context(cafile=str(ca.path()))
        reader, writer = await asyncio.open_connection(
            HOST, node.port("proxy", tls=True), ssl=context, server_hostname="shop.example.com"
        )
        writer.write(b"GET /r HTTP/1.1\r\nHost: shop.example.com\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(HOST, node.port("proxy", tls=True), ssl=context, server_hostname="other")


async def test_unmatched_requests_are_not_counted() -> None:
    async with Backend() as backend, running() as node:
        plugin = {"name": "prometheus", "config": {"status_code_metrics": True}}
        await loaded(node, configuration(backend.port) | {"plugins": [plugin]})
        await get(node, "proxy", "/none")
        await get(node, "proxy", "/r")
        text = (await get(node, "status", "/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith("kong_http_requests_total")]
        labels = 'service="s",route="r",code="200",source="service",workspace="default",consumer=""'
        assert lines == [f"kong_http_requests_total{{{labels}}} 1"]


async def test_passive_health_is_shown_and_obeyed() -> None:
    async def answer(_m: str, _t: str, _f: dict[str, str], _b: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
        return True

    async with Backend(answer) as bad, Backend() as good, running() as node:
        document = configuration(1, url="http://up")
        passive = {"unhealthy": {"http_failures": 1}}
        targets = [{"target": f"{HOST}:{bad.port}"}, {"target": f"{HOST}:{good.port}"}]
        document["upstreams"] = [{"name": "up", "healthchecks": {"passive": passive}, "targets": targets}]
        await loaded(node, document)
        codes = [(await get(node, "proxy", "/r")).status_code for _ in range(10)]
        assert codes.count(500) == 1
        rows = (await get(node, "admin", "/upstreams/up/health")).json()["data"]
        assert {row["target"].split(":")[1]: row["health"] for row in rows} == {
            str(bad.port): "UNHEALTHY",
            str(good.port): "HEALTHY",
        }
        await loaded(node, document)
        assert (
            not node.gateway.balancers["up"].targets[0].healthy or not node.gateway.balancers["up"].targets[1].healthy
        )
