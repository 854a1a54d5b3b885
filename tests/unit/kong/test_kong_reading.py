"""What a gateway says about itself is read as values, and its refusals as the errors of the tree."""

from __future__ import annotations

import json
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from scripted_gateway import CLOSE, ScriptedGateway, Seen, answer

from konverge.errors import Busy, Forbidden, Invalid, NotFound, Unavailable, UsageError
from konverge.kong.admin import AdminClient, StatusClient
from konverge.kong.identity import diagnose_identity
from konverge.kong.outcomes import IdentityCause, IdentityRefused, Unreachable, UnreachableCause
from konverge.pki.authority import Authority, LeafRequest, request_controller, request_proxies
from konverge.pki.bundle import read_bundle
from konverge.pki.contexts import build_client_context, build_server_context

Start = Callable[..., Awaitable[ScriptedGateway]]
STATUS = {
    "server": {"connections_active": 3, "connections_accepted": 1032, "total_requests": 1040},
    "memory": {"workers_lua_vms": [{"pid": 1}, {"pid": 2}]},
    "configuration_hash": "90220c8e8bb1a421a822eea900f30dc2",
}
INFO = {
    "version": "3.9.3",
    "node_id": "b8a7b147-8620-45c0-8441-8cd0f173cdd8",
    "hostname": "gw-1",
    "pids": {"master": 1, "workers": [2, 3]},
    "plugins": {"available_on_server": {"key-auth": {"version": "3.9.3"}, "cors": {}}},
    "configuration": {
        "database": "off",
        "router_flavor": "traditional_compatible",
        "proxy_listeners": [{"ip": "0.0.0.0", "port": 8000, "ssl": False, "http2": False}],
        "admin_listeners": [{"ip": "0.0.0.0", "port": 8444, "ssl": True, "http2": True}],
        "stream_listeners": {},
    },
}


def say(status: int, document: Any) -> Callable[[Seen], bytes]:
    return lambda seen: answer(status, json.dumps(document).encode())


async def test_status_and_info(gateways: Start) -> None:
    gateway = await gateways(say(200, STATUS))
    async with AdminClient(gateway.url) as client:
        status = await client.status()
        assert (status.hash, status.connections_active, status.total_requests, status.workers) == (
            STATUS["configuration_hash"],
            3,
            1040,
            2,
        )
        assert not status.empty
        assert not status.database
        gateway.respond = say(200, INFO)
        info = await client.info()
    assert (info.version, info.database, info.router_flavor, info.workers) == (
        "3.9.3",
        "off",
        "traditional_compatible",
        2,
    )
    assert [(listener.port, listener.tls) for listener in info.proxy_listeners] == [(8000, False)]
    assert [(listener.port, listener.tls) for listener in info.admin_listeners] == [(8444, True)]
    assert info.stream_listeners == ()
    assert info.plugins == ("cors", "key-auth")


async def test_readiness_and_draining(gateways: Start) -> None:
    gateway = await gateways(say(200, {"message": "ready"}))
    async with StatusClient(gateway.url) as client:
        assert (await client.ready()).ready
        gateway.respond = say(503, {"message": "no configuration available (empty configuration present)"})
        empty = await client.ready()
        assert (empty.ready, empty.draining) == (False, False)
        gateway.respond = say(503, {"message": "draining"})
        assert (await client.ready()).draining
        gateway.respond = lambda seen: answer(204)
        await client.drain()
    assert (gateway.seen[-1].method, gateway.seen[-1].path) == ("POST", "/status/ready")
    assert json.loads(gateway.seen[-1].body) == {"status": "draining"}


async def test_entities_are_paged(gateways: Start) -> None:
    pages = {"": (["a", "b"], "o1"), "o1": (["c"], "o 2"), "o 2": (["d"], None)}

    def respond(seen: Seen) -> bytes:
        offset = seen.path.partition("&offset=")[2].replace("+", " ")
        names, following = pages[offset]
        page: dict[str, Any] = {"data": [{"name": name} for name in names], "next": None}
        if following:
            page |= {"next": f"/routes?offset={following}", "offset": following}
        return answer(200, json.dumps(page).encode())

    gateway = await gateways(respond)
    async with AdminClient(gateway.url) as client:
        found = [entity["name"] async for entity in client.list_entities("routes", size=2, pause=0)]
        assert found == ["a", "b", "c", "d"]
        with pytest.raises(UsageError):
            await anext(client.list_entities("routes?size=1"))
    assert gateway.seen[0].path == "/routes?size=2"


async def test_metrics_is_text(gateways: Start) -> None:
    gateway = await gateways(lambda seen: answer(200, b"kong_datastore_reachable 1\n", "text/plain"))
    async with StatusClient(gateway.url) as client:
        assert await client.metrics() == "kong_datastore_reachable 1\n"


@pytest.mark.parametrize(
    ("status", "error"), [(404, NotFound), (401, Forbidden), (429, Busy), (500, Unavailable), (400, Invalid)]
)
async def test_refused_reads(gateways: Start, status: int, error: type[Exception]) -> None:
    gateway = await gateways(say(status, {"message": "because"}))
    async with AdminClient(gateway.url) as client:
        with pytest.raises(error, match=r"GET http://127\.0\.0\.1:\d+/status: because"):
            await client.status()


async def test_malformed_and_broken_answers_are_unavailable(gateways: Start) -> None:
    for step in (
        answer(200, b"<html>"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\n{}",
        CLOSE,
    ):
        gateway = await gateways(lambda seen, step=step: step)
        async with AdminClient(gateway.url) as client:
            with pytest.raises(Unavailable):
                await client.status()


async def test_await_hash_sees_the_change_and_gives_up(gateways: Start) -> None:
    hashes = ["0" * 32, "1" * 32]
    gateway = await gateways(
        lambda seen: say(200, {"configuration_hash": hashes[min(len(gateway.seen) - 1, 1)]})(seen)
    )
    async with AdminClient(gateway.url) as client:
        found = await client.await_hash("1" * 32, within=5)
        assert found is not None
        assert len(gateway.seen) == 2
        assert await client.await_hash("2" * 32, within=0.15) is None


class World:
    """A proxy and a controller of one fleet, valid now."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.authority = Authority.create("edge", self.now)
        self.bundle = read_bundle(self.authority.pem, self.now)
        self.server = self.authority.issue(request_proxies("adm", "kong"), self.now)
        self.client = self.authority.issue(request_controller("edge"), self.now)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


NAME = "gw-1.adm.kong.svc"
PAGE = b"<html><head><title>400 The SSL certificate error</title></head></html>"


async def test_mutual_tls_and_the_name_apart_from_the_address(gateways: Start, world: World) -> None:
    gateway = await gateways(say(200, STATUS), tls=build_server_context(world.server, world.bundle))
    context = build_client_context(world.bundle, world.client)
    async with AdminClient(gateway.url, context=context, server_name=NAME) as client:
        assert (await client.status()).hash == STATUS["configuration_hash"]
        assert (await client.status(fresh=True)).hash == STATUS["configuration_hash"]


async def test_server_is_always_verified(gateways: Start, world: World) -> None:
    gateway = await gateways(say(201, {"a": 1}), tls=build_server_context(world.server))
    stranger = read_bundle(Authority.create("other", world.now).pem, world.now)
    cases = [
        (world.bundle, "gw-1.other.kong.svc", UnreachableCause.SERVER_NAME),
        (world.bundle, "", UnreachableCause.SERVER_NAME),
        (stranger, NAME, UnreachableCause.SERVER_UNTRUSTED),
    ]
    for bundle, name, cause in cases:
        context = build_client_context(bundle, world.client)
        async with AdminClient(gateway.url, context=context, server_name=name) as client:
            outcome = await client.push(b"{}")
            assert isinstance(outcome, Unreachable)
            assert outcome.cause is cause
            with pytest.raises(Unavailable) as caught:
                await client.status()
            assert caught.value.reason == cause.value
    assert gateway.seen == []


def test_a_context_that_does_not_verify_is_refused() -> None:
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    for context in (None, blind):
        with pytest.raises(UsageError):
            AdminClient("https://127.0.0.1:8444", context=context)


async def test_expired_server_certificate_is_named(gateways: Start, world: World) -> None:
    old = Authority.create("old", world.now - timedelta(days=20))
    expired = old.issue(request_proxies("adm", "kong"), world.now - timedelta(days=20), lifetime=timedelta(days=1))
    gateway = await gateways(say(200, STATUS), tls=build_server_context(expired))
    context = build_client_context(read_bundle(old.pem, world.now))
    async with AdminClient(gateway.url, context=context, server_name=NAME) as client:
        outcome = await client.push(b"{}")
    assert isinstance(outcome, Unreachable)
    assert outcome.cause is UnreachableCause.SERVER_EXPIRED


async def test_identity_refused_is_diagnosed_from_our_own_certificate(gateways: Start, world: World) -> None:
    gateway = await gateways(lambda seen: answer(400, PAGE, "text/html"))
    for days, cause in (
        (-1, IdentityCause.NOT_YET_VALID),
        (0, IdentityCause.UNKNOWN_AUTHORITY),
        (31, IdentityCause.EXPIRED),
    ):
        clock = world.now + timedelta(days=days)
        certificate = world.client.certificate
        async with AdminClient(gateway.url, certificate=certificate, clock=lambda at=clock: at) as client:
            outcome = await client.push(b"{}")
            assert isinstance(outcome, IdentityRefused)
            assert outcome.cause is cause
            with pytest.raises(Forbidden, match=cause.value) as caught:
                await client.status()
            assert caught.value.reason == "IdentityRefused"


def test_wrong_usage_and_what_the_page_says_itself(world: World) -> None:
    server_only = world.authority.issue(LeafRequest("x", ("serverAuth",)), world.now).certificate
    refused = IdentityRefused(IdentityCause.UNDIAGNOSED)
    assert diagnose_identity(refused, server_only, world.now).cause is IdentityCause.WRONG_USAGE
    assert diagnose_identity(refused, None, world.now) == refused
    not_sent = IdentityRefused(IdentityCause.NOT_SENT)
    assert diagnose_identity(not_sent, server_only, world.now) == not_sent


async def test_read_over_a_kept_connection_that_was_cut_is_repeated(gateways: Start) -> None:
    gateway = await gateways(lambda seen: CLOSE if seen.number == 2 else say(200, STATUS)(seen))
    async with AdminClient(gateway.url) as client:
        await client.status()
        assert (await client.status()).hash == STATUS["configuration_hash"]
    assert [(seen.connection, seen.number) for seen in gateway.seen] == [(1, 1), (1, 2), (2, 1)]
