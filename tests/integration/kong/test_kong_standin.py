"""The Kong client against a running stand-in gateway: pushes, refusals, mutual TLS, rotation by reload."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from konverge.errors import Forbidden, KonvergeError, Unavailable
from konverge.kong.admin import AdminClient, StatusClient
from konverge.kong.classifying import predict_hash
from konverge.kong.marker import add_marker, build_request
from konverge.kong.outcomes import (
    Busy,
    IdentityCause,
    IdentityRefused,
    Refused,
    SizeLimit,
    Stored,
    TooLarge,
    Unchanged,
    Unreachable,
    UnreachableCause,
)
from konverge.kong.probing import ProbeRequest, ProbeTarget, probe, probe_until_ok
from konverge.model.condition import ObjectRef
from konverge.model.proxy import ZERO_HASH
from konverge.pki.authority import Authority, Identity, LeafRequest, request_controller, request_proxies
from konverge.pki.bundle import TrustBundle, read_bundle
from konverge.pki.contexts import build_client_context
from konverge.pki.files import assemble_files
from konverge.pki.handshake import HandshakeReason, prove

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        importlib.util.find_spec("konverge.lab.kong") is None
        or importlib.util.find_spec("konverge.lab.kong.__main__") is None,
        reason="the stand-in gateway is not installed",
    ),
]

NAME = "gw-1.adm.kong.svc"
TOKEN = "0123456789abcdef"
STARTING = 20.0
"""Seconds that a gateway may take to start on a busy machine."""


@dataclass
class Gateway:
    """One stand-in process and what it listens on."""

    process: asyncio.subprocess.Process
    prefix: Path
    ports: dict[str, int]

    def url(self, name: str) -> str:
        return f"http{'s' if name == 'admin-tls' else ''}://127.0.0.1:{self.ports[name]}"

    @property
    def proxy(self) -> ProbeTarget:
        return ProbeTarget("127.0.0.1", self.ports["proxy"])


def find_ports(count: int) -> Iterator[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        ports = [one.getsockname()[1] for one in sockets]
    yield from ports


@contextlib.asynccontextmanager
async def run_gateway(prefix: Path, *flags: str) -> AsyncIterator[Gateway]:
    """Run a stand-in until the block ends; it is killed then."""
    names = ["admin", "status", "proxy", "admin-tls"]
    ports = dict(zip(names, find_ports(len(names)), strict=True))
    listeners = [f"--{name}=127.0.0.1:{port}" for name, port in ports.items() if name != "admin-tls" or flags]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "konverge.lab.kong", *listeners, f"--prefix={prefix}", *flags
    )
    try:
        gateway = Gateway(process, prefix, ports)
        await wait_until_up(gateway)
        yield gateway
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def wait_until_up(gateway: Gateway) -> None:
    async with StatusClient(gateway.url("status")) as client, asyncio.timeout(STARTING):
        while True:
            assert gateway.process.returncode is None, "the gateway ended while starting"
            with contextlib.suppress(Unavailable):
                await client.status()
                return
            await asyncio.sleep(0.05)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with run_gateway(tmp_path / "prefix") as gateway:
        yield gateway


def build(count: int = 1, **more: Any) -> bytes:
    services = [
        {"name": f"s{n}", "host": "127.0.0.1", "port": 9, "routes": [{"name": f"r{n}", "paths": [f"/r{n}"]}]}
        for n in range(count)
    ]
    return json.dumps({"_format_version": "3.0", "services": services, **more}).encode()


async def test_stored_unchanged_and_the_predicted_hash(gateway: Gateway) -> None:
    content = build()
    async with AdminClient(gateway.url("admin")) as admin, StatusClient(gateway.url("status")) as status:
        assert (await admin.status()).hash == ZERO_HASH
        assert not (await status.ready()).ready
        assert await admin.push(content) == Stored(predict_hash(content))
        assert (await admin.status()).hash == (await status.status()).hash == predict_hash(content)
        assert await admin.push(content) == Unchanged(predict_hash(content))
        found = await admin.await_hash(predict_hash(content), within=5)
        assert found is not None
        assert [entity["name"] async for entity in admin.list_entities("routes")] == ["r0"]
        assert "kong_" in await status.metrics()
        info = await admin.info()
        assert info.database == "off"
        assert info.version.startswith("3.")
        assert gateway.ports["proxy"] in {listener.port for listener in info.proxy_listeners}


async def test_empty_configuration_is_stored_as_zeros(gateway: Gateway) -> None:
    async with AdminClient(gateway.url("admin")) as admin:
        assert await admin.push(b'{"_format_version":"3.0"}') == Stored(ZERO_HASH)


async def test_refusals_name_kubernetes_objects(gateway: Gateway) -> None:
    tags = ["k8s-name:web", "k8s-namespace:shop", "k8s-kind:Ingress", "k8s-uid:u1"]
    ingress = ObjectRef(kind="Ingress", name="web", namespace="shop", uid="u1")
    bad = {"name": "bad", "paths": ["/x"], "protocols": ["htp"], "tags": tags}
    lost = {"name": "lost", "paths": ["/x"], "service": "nope", "tags": tags}
    twins = [{"name": "twin", "paths": [f"/{n}"], "tags": tags} for n in "ab"]
    async with AdminClient(gateway.url("admin")) as admin:
        good = build()
        await admin.push(good)
        for routes in ([bad], [lost], twins):
            outcome = await admin.push(build(1, routes=routes))
            assert isinstance(outcome, Refused), routes
            assert outcome.objects == (ingress,), routes
        assert (await admin.status()).hash == predict_hash(good)
        broken = await admin.push(b'{"_format_version":')
        assert isinstance(broken, Refused)
        assert "failed parsing" in broken.document_errors[0].message


async def test_too_large_is_refused_before_it_is_sent(gateway: Gateway) -> None:
    content = build() + b" " * (11 * 1024 * 1024)
    async with AdminClient(gateway.url("admin")) as admin:
        started = time.monotonic()
        assert await admin.push(content) == TooLarge(SizeLimit.BODY)
        assert time.monotonic() - started < 5
        assert isinstance(await admin.push(build(1) + b" " * (9 * 1024 * 1024)), Stored)


async def test_two_pushes_at_once_never_both_win_unseen(gateway: Gateway) -> None:
    one, two = build(3000), build(3001)
    async with AdminClient(gateway.url("admin")) as first, AdminClient(gateway.url("admin")) as second:
        outcomes = await asyncio.gather(first.push(one), second.push(two))
        loaded = (await first.status()).hash
    stored = {outcome.hash for outcome in outcomes if isinstance(outcome, Stored)}
    busy = [outcome for outcome in outcomes if isinstance(outcome, Busy)]
    assert loaded in stored
    assert len(stored) + len(busy) == 2
    assert all(0 < outcome.retry_after <= 10 for outcome in busy)


async def test_marker_proves_what_is_routed(gateway: Gateway) -> None:
    request = build_request(TOKEN)
    async with AdminClient(gateway.url("admin")) as admin:
        for revision in (1, 2):
            document = add_marker(
                json.loads(build(200)),
                fleet="edge",
                revision=revision,
                token=TOKEN,
                flavor=(await admin.info()).router_flavor,
            )
            assert isinstance(await admin.push(json.dumps(document).encode()), Stored)
            result = await probe_until_ok(gateway.proxy, ProbeRequest.of_marker(request, revision), within=10)
            assert result.ok, result.describe()
    hidden = await probe(gateway.proxy, ProbeRequest(request.path, status=404), connections=2)
    assert hidden.ok, hidden.describe()


async def test_killed_gateway_is_unreachable(gateway: Gateway) -> None:
    async with AdminClient(gateway.url("admin")) as admin:
        await admin.push(build())
        gateway.process.kill()
        await gateway.process.wait()
        outcome = await admin.push(build(2))
        assert isinstance(outcome, Unreachable)
        assert outcome.cause in (UnreachableCause.REFUSED, UnreachableCause.CLOSED, UnreachableCause.RESET)
        with pytest.raises(Unavailable):
            await admin.status()


class Secured:
    """A gateway with mutual TLS whose files can be exchanged, and the identities around it."""

    def __init__(self, directory: Path) -> None:
        self.now = datetime.now(UTC)
        self.directory = directory
        self.authority = Authority.create("edge", self.now)
        self.server = self.authority.issue(request_proxies("adm", "kong"), self.now)
        self.client = self.authority.issue(request_controller("edge"), self.now)
        self.trust = read_bundle(self.authority.pem, self.now)

    def write(self, server: Identity, clients: TrustBundle) -> list[str]:
        for name, content in assemble_files(server, clients, self.now).data.items():
            path = self.directory / name
            path.touch(mode=0o600)
            path.write_bytes(content)
        return [
            f"--cert={self.directory / 'tls.crt'}",
            f"--key={self.directory / 'tls.key'}",
            f"--client-ca={self.directory / 'client-ca.pem'}",
        ]

    def connect(self, gateway: Gateway, identity: Identity | None, name: str = NAME) -> AdminClient:
        context = build_client_context(self.trust, identity)
        certificate = identity.certificate if identity else None
        return AdminClient(gateway.url("admin-tls"), context=context, server_name=name, certificate=certificate)


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[tuple[Secured, Gateway]]:
    directory = tmp_path / "identity"
    directory.mkdir(mode=0o700)
    world = Secured(directory)
    async with run_gateway(tmp_path / "prefix", *world.write(world.server, world.trust)) as gateway:
        yield world, gateway


async def test_mutual_tls_lets_the_controller_in_and_nobody_else(secured: tuple[Secured, Gateway]) -> None:
    world, gateway = secured
    content = build()
    async with world.connect(gateway, world.client) as admin:
        assert await admin.push(content) == Stored(predict_hash(content))
        assert (await admin.status(fresh=True)).hash == predict_hash(content)
    stranger = Authority.create("other", world.now)
    long_ago = world.now - timedelta(days=2)
    past = Authority.create("edge", long_ago)
    cases = [
        (None, IdentityCause.NOT_SENT),
        (stranger.issue(request_controller("x"), world.now), IdentityCause.UNKNOWN_AUTHORITY),
        (past.issue(request_controller("x"), long_ago, lifetime=timedelta(days=1)), IdentityCause.EXPIRED),
        (
            world.authority.issue(request_controller("x"), world.now + timedelta(days=1)),
            IdentityCause.NOT_YET_VALID,
        ),
        (world.authority.issue(LeafRequest("x", ("serverAuth",)), world.now), IdentityCause.WRONG_USAGE),
    ]
    for identity, cause in cases:
        async with world.connect(gateway, identity) as admin:
            for body in (build(2), build(2) + b" " * 2_000_000):
                outcome = await admin.push(body)
                assert isinstance(outcome, IdentityRefused), (cause, outcome)
                assert outcome.cause is cause
            with pytest.raises(Forbidden):
                await admin.status()
    async with world.connect(gateway, world.client) as admin:
        assert (await admin.status()).hash == predict_hash(content), "nobody else changed it"


async def test_wrong_names_and_plain_http(secured: tuple[Secured, Gateway]) -> None:
    world, gateway = secured
    async with world.connect(gateway, world.client, "gw-1.elsewhere.kong.svc") as admin:
        outcome = await admin.push(build())
        assert isinstance(outcome, Unreachable)
        assert outcome.cause is UnreachableCause.SERVER_NAME
    async with AdminClient(gateway.url("admin-tls").replace("https", "http")) as admin:
        plain = await admin.push(build())
        assert isinstance(plain, IdentityRefused)
        assert plain.cause is IdentityCause.NO_TLS


async def test_handshakes_prove_both_sides(secured: tuple[Secured, Gateway]) -> None:
    world, gateway = secured
    port = gateway.ports["admin-tls"]
    good = await prove("127.0.0.1", port, NAME, build_client_context(world.trust, world.client))
    assert (good.reason, good.status) == (HandshakeReason.ACCEPTED, 200)
    assert good.certificate == world.server.certificate
    refused = await prove("127.0.0.1", port, NAME, build_client_context(world.trust))
    assert (refused.reason, refused.verified) == (HandshakeReason.CLIENT_REFUSED, True)
    other = read_bundle(Authority.create("other", world.now).pem, world.now)
    untrusted = await prove("127.0.0.1", port, NAME, build_client_context(other, world.client))
    assert untrusted.reason is HandshakeReason.SERVER_UNTRUSTED
    assert untrusted.certificate == world.server.certificate


async def wait_for_serial(world: Secured, gateway: Gateway, trust: TrustBundle, serial: str) -> None:
    context = build_client_context(trust, world.client)
    async with asyncio.timeout(15):
        while True:
            shown = await prove("127.0.0.1", gateway.ports["admin-tls"], NAME, context)
            if shown.certificate and shown.certificate.serial == serial:
                return
            await asyncio.sleep(0.05)


async def test_rotation_with_overlap_loses_no_push(secured: tuple[Secured, Gateway]) -> None:
    """Old and new trust overlap; a client that keeps its connection is cut by the reload and comes back by itself."""
    world, gateway = secured
    new = Authority.create("edge", world.now)
    both = world.trust.overlap(read_bundle(new.pem, world.now), world.now)
    server = new.issue(request_proxies("adm", "kong"), world.now)
    context = build_client_context(both, world.client)
    outcomes: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
    seen: list[tuple[int, Any]] = []

    async def keep_pushing(admin: AdminClient) -> None:
        for number in itertools.count():
            outcomes.put_nowait((number, await admin.push(build(number % 50 + 1))))

    async with AdminClient(gateway.url("admin-tls"), context=context, server_name=NAME) as admin:
        pushing = asyncio.create_task(keep_pushing(admin))
        seen.append(await outcomes.get())
        world.write(server, both)
        gateway.process.send_signal(signal.SIGHUP)
        await wait_for_serial(world, gateway, both, server.certificate.serial)
        while not outcomes.empty():
            seen.append(outcomes.get_nowait())
        async with asyncio.timeout(15):
            seen += [await outcomes.get() for _ in range(5)]
        pushing.cancel()
    lost = [(number, outcome) for number, outcome in seen if not isinstance(outcome, (Stored, Unchanged))]
    assert not lost, lost[:3]


async def test_restart_on_the_same_prefix_keeps_the_configuration(tmp_path: Path) -> None:
    content = build()
    async with run_gateway(tmp_path / "prefix") as gateway:
        async with AdminClient(gateway.url("admin")) as admin:
            assert isinstance(await admin.push(content), Stored)
        gateway.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(gateway.process.wait(), 20)
    async with run_gateway(tmp_path / "prefix") as gateway, AdminClient(gateway.url("admin")) as admin:
        assert (await admin.status()).hash == predict_hash(content)
        assert await admin.push(content) == Unchanged(predict_hash(content))


async def test_errors_name_the_proxy(gateway: Gateway) -> None:
    async with AdminClient(gateway.url("admin")) as admin:
        with pytest.raises(KonvergeError, match=f"127.0.0.1:{gateway.ports['admin']}/nonsense"):
            await anext(admin.list_entities("nonsense"))
