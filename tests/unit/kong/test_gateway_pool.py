"""A pool of gateways keeps connections, proves identities over them, and lets go of both when it must."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from scripted_gateway import ScriptedGateway, Seen, answer

from konverge.errors import Forbidden, Invalid, Unavailable, VerificationFailed
from konverge.kong.classifying import predict_hash
from konverge.kong.failures import LostConnection
from konverge.kong.outcomes import IdentityCause, IdentityRefused, Stored, UnreachableCause
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import Proxy
from konverge.operate import connecting
from konverge.operate.connecting import GatewayPool, map_refusal
from konverge.pki.authority import Authority, request_controller, request_proxies
from konverge.pki.bundle import build_bundle, read_bundle
from konverge.pki.contexts import build_server_context
from konverge.pki.files import CONTROLLER_BUNDLE_FILE, IdentityFiles, assemble_files

Start = Callable[..., Awaitable[ScriptedGateway]]
FLEET = Fleet(name="edge", namespace="kong", uid="uid-1", spec=FleetSpec(proxy_service="edge-proxy"))
NAME = "pod.adm.kong.svc"
STATUS = {"configuration_hash": "0" * 32, "memory": {"workers_lua_vms": [{"pid": 1}]}, "server": {}}
CONTENT = b'{"_format_version":"3.0"}'


class World:
    """One authority, the identity of the controller, the certificate of the proxies."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.authority = Authority.create("edge", self.now)
        self.bundle = read_bundle(self.authority.pem, self.now)
        self.server = self.authority.issue(request_proxies("adm", "kong"), self.now)
        self.files = self.issue()

    def issue(self, lifetime: timedelta = timedelta(days=30)) -> IdentityFiles:
        leaf = self.authority.issue(request_controller("edge"), self.now, lifetime=lifetime)
        return assemble_files(leaf, self.bundle, self.now, CONTROLLER_BUNDLE_FILE)

    def tls(self) -> ssl.SSLContext:
        return build_server_context(self.server, self.bundle)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def respond(seen: Seen) -> bytes:
    if seen.method == "POST":
        return answer(201, b'{"services":{}}')
    if seen.path == "/":
        return answer(200, b'{"version":"3.9.1"}')
    return answer(200, json.dumps(STATUS).encode())


def proxy_at(gateway: ScriptedGateway, **fields: Any) -> Proxy:
    given = {"name": "gw-1", "namespace": "kong", "ip": "127.0.0.1", "uid": "u1", "server_name": NAME} | fields
    return Proxy(**given, admin_port=gateway.port)


async def test_one_connection_serves_identity_version_push_and_read_back(gateways: Start, world: World) -> None:
    gateway = await gateways(respond, tls=world.tls())
    async with GatewayPool(FLEET, world.files) as pool:
        for _ in range(3):
            reached = pool.reach(proxy_at(gateway))
            mtls = await reached.identify()
            assert mtls.serial == world.server.certificate.serial
            assert mtls.subject == world.server.certificate.subject
            assert mtls.expires == world.server.certificate.not_after
            assert mtls.protocol == "TLSv1.3"
            assert mtls.trusted_authorities == (world.authority.identity.certificate.subject,)
            assert await reached.version() == "3.9.1"
            assert await reached.push(CONTENT) == Stored(predict_hash(CONTENT))
            assert await reached.loaded_hash() == "0" * 32
    assert gateway.connections == 1
    assert [seen.path for seen in gateway.seen].count("/") == 1, "the version is asked for once per connection"


async def test_all_proxies_share_one_context(gateways: Start, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    real = connecting.build_client_context
    monkeypatch.setattr(connecting, "build_client_context", lambda *a: built.append(1) or real(*a))
    ports = [await gateways(respond, tls=world.tls()) for _ in range(3)]
    async with GatewayPool(FLEET, world.files) as pool:
        proxies = [proxy_at(g, name=f"gw-{n}", server_name=f"gw-{n}.adm.kong.svc") for n, g in enumerate(ports)]
        for proxy in proxies:
            await pool.reach(proxy).identify()
        with pytest.raises(VerificationFailed, match="gw-9"):
            await pool.reach(proxy_at(ports[0], name="gw-9", server_name="gw-9.other.kong.svc")).identify()
    assert len(built) == 1


async def test_a_cut_connection_is_proven_anew(gateways: Start, world: World) -> None:
    def cut(seen: Seen) -> bytes:
        return respond(seen).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)

    gateway = await gateways(cut, tls=world.tls())
    async with GatewayPool(FLEET, world.files) as pool:
        reached = pool.reach(proxy_at(gateway))
        for _ in range(2):
            await reached.identify()
            await reached.version()
    assert [seen.path for seen in gateway.seen] == ["/status", "/", "/status", "/"]


async def test_a_new_identity_is_shown_on_new_connections_only(gateways: Start, world: World) -> None:
    gateway = await gateways(respond, tls=world.tls())
    async with GatewayPool(FLEET, world.files) as pool:
        await pool.reach(proxy_at(gateway)).identify()
        await pool.use(world.files)
        await pool.reach(proxy_at(gateway)).identify()
        assert gateway.connections == 1, "the same identity changes nothing"
        fresh = world.issue()
        await pool.use(fresh)
        await pool.reach(proxy_at(gateway)).identify()
        assert gateway.connections == 2
        stranger = Authority.create("stranger", world.now)
        await pool.use(
            IdentityFiles(fresh.identity, build_bundle(stranger.identity.chain[:1], world.now), fresh.bundle_file)
        )
        with pytest.raises(VerificationFailed) as caught:
            await pool.reach(proxy_at(gateway)).identify()
    assert caught.value.reason == "ServerUntrusted"


async def test_what_is_under_way_ends_with_the_identity_that_it_began_with(gateways: Start, world: World) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def wait(seen: Seen) -> bytes:
        arrived.set()
        await go.wait()
        return answer(201, b'{"services":{}}')

    gateway = await gateways(lambda seen: wait(seen) if seen.method == "POST" else respond(seen), tls=world.tls())
    async with GatewayPool(FLEET, world.files) as pool:
        reached = pool.reach(proxy_at(gateway))
        push = asyncio.create_task(reached.push(CONTENT))
        await arrived.wait()
        await pool.use(world.issue())
        assert (await reached.identify()).serial
        assert gateway.connections == 2
        go.set()
        assert await push == Stored(predict_hash(CONTENT))


async def test_gateways_of_pods_that_left_are_closed_when_idle(gateways: Start, world: World) -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def wait(seen: Seen) -> bytes:
        arrived.set()
        await go.wait()
        return answer(201, b'{"services":{}}')

    gateway = await gateways(lambda seen: wait(seen) if seen.method == "POST" else respond(seen), tls=world.tls())
    stays, leaves = proxy_at(gateway, name="stays", uid="a"), proxy_at(gateway, name="leaves", uid="b")
    async with GatewayPool(FLEET, world.files) as pool:
        kept, left = pool.reach(stays), pool.reach(leaves)
        push = asyncio.create_task(left.push(CONTENT))
        await arrived.wait()
        await pool.retain([stays.model_copy(update={"ready": True})])
        assert pool.reach(stays) is kept, "a proxy that becomes ready is the same proxy"
        go.set()
        assert await push == Stored(predict_hash(CONTENT))
        with pytest.raises(LostConnection):
            await left.loaded_hash()
        assert pool.reach(leaves) is not left


async def test_a_restarted_pod_is_reached_under_its_new_address(gateways: Start, world: World) -> None:
    first, second = await gateways(respond, tls=world.tls()), await gateways(respond, tls=world.tls())
    async with GatewayPool(FLEET, world.files) as pool:
        one, two = pool.reach(proxy_at(first)), pool.reach(proxy_at(second))
        again = pool.reach(proxy_at(first, uid="u2"))
        assert len({id(one), id(two), id(again)}) == 3


async def test_a_certificate_that_expires_under_a_kept_connection_is_no_proof(gateways: Start, world: World) -> None:
    clock = world.now
    gateway = await gateways(respond, tls=world.tls())
    async with GatewayPool(FLEET, world.issue(timedelta(days=60)), lambda: clock) as pool:
        await pool.reach(proxy_at(gateway)).identify()
        clock = world.server.certificate.not_after + timedelta(seconds=1)
        with pytest.raises(VerificationFailed, match="expired at") as caught:
            await pool.reach(proxy_at(gateway)).identify()
    assert caught.value.reason == "ServerUntrusted"


async def test_our_own_certificate_that_expired_is_not_shown_over_a_kept_connection(
    gateways: Start, world: World
) -> None:
    clock, end = world.now, world.files.identity.certificate.not_after
    gateway = await gateways(respond, tls=world.tls())
    async with GatewayPool(FLEET, world.files, lambda: clock) as pool:
        reached = pool.reach(proxy_at(gateway))
        assert isinstance(await reached.push(CONTENT), Stored)
        sent, clock = len(gateway.seen), end + timedelta(seconds=1)
        refused = await reached.push(CONTENT)
        assert isinstance(refused, IdentityRefused)
        assert refused.cause is IdentityCause.EXPIRED
        for ask in (reached.identify, reached.loaded_hash, reached.version):
            with pytest.raises(Forbidden, match=f"our client certificate expired at {end:%FT%TZ}") as caught:
                await ask()
            assert caught.value.reason == "IdentityRefused"
        assert len(gateway.seen) == sent, "nothing is sent with an expired identity"
        clock = end
        assert isinstance(await reached.push(CONTENT), Stored), "valid to the last second"


async def test_the_side_that_refuses_is_named(gateways: Start, world: World) -> None:
    page = b"<html><head><title>400 The SSL certificate error</title></head></html>"
    picky = await gateways(lambda _: answer(400, page, "text/html"), tls=world.tls())
    other = await gateways(lambda _: answer(404, b'{"message":"no Route matched"}'), tls=world.tls())
    sick = await gateways(lambda _: answer(500, b'{"message":"An unexpected error occurred"}'), tls=world.tls())
    plain = await gateways(respond)
    async with GatewayPool(FLEET, world.files) as pool:
        for gateway, kind, reason in (
            (picky, Forbidden, "IdentityRefused"),
            (other, Invalid, "NotAnAdminApi"),
            (sick, Unavailable, "Unavailable"),
            (plain, Unavailable, "ProxyUnreachable"),
        ):
            with pytest.raises(kind) as caught:
                await pool.reach(proxy_at(gateway)).identify()
            assert getattr(caught.value, "reason", "") == reason
            assert "gw-1" in str(caught.value)


@pytest.mark.parametrize(
    ("cause", "kind", "reason"),
    [
        (UnreachableCause.SERVER_UNTRUSTED, VerificationFailed, "ServerUntrusted"),
        (UnreachableCause.SERVER_NAME, VerificationFailed, "ServerUntrusted"),
        (UnreachableCause.SERVER_EXPIRED, VerificationFailed, "ServerUntrusted"),
        (UnreachableCause.TLS, Unavailable, "ProxyUnreachable"),
        (UnreachableCause.REFUSED, Unavailable, "ProxyUnreachable"),
        (UnreachableCause.TIMED_OUT, Unavailable, "ProxyUnreachable"),
    ],
)
def test_a_lost_connection_says_who_is_to_blame(cause: UnreachableCause, kind: type[Exception], reason: str) -> None:
    error = map_refusal(Proxy(name="p1", namespace="ns", ip="127.0.0.2"), LostConnection("why", cause))
    assert type(error) is kind
    assert error.reason == reason
    assert error.message == "Proxy p1 at 127.0.0.2:8444: why"
