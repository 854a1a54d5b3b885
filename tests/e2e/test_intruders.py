"""The intruder's table: whoever is not the controller of this fleet is refused, and so is who is not its proxy.

Open by design, and not tried here as if they were not: the proxy listeners 8000 and 8443 (the traffic), the Status
API 8100 and the controller's port 10254 (read only, docs/reference/certificates.md). The proxy of these tests runs
with exactly the settings that a fleet's pods get.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from konverge.decide.objects import IDENTITY_PATH, proxy_environment
from konverge.errors import Forbidden, KonvergeError, Unavailable, VerificationFailed
from konverge.lab.kong.node import StandInKong
from konverge.lab.kong.settings import Settings
from konverge.lab.pod import PodEnvironment
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import Proxy
from konverge.model.revision import Revision
from konverge.operate.configuring import configure_proxy
from konverge.operate.connecting import GatewayPool, probe_token
from konverge.operate.following import prove_trust
from konverge.operate.identities import create_authority, issue_controller, issue_proxies
from konverge.pki.authority import Authority, Identity, LeafRequest, name_server, request_controller, request_proxies
from konverge.pki.bundle import TrustBundle, build_bundle
from konverge.pki.contexts import build_client_context
from konverge.pki.files import IdentityFiles, assemble_files
from konverge.pki.handshake import HandshakeReason, prove
from konverge.pki.resuming import visit

pytestmark = [pytest.mark.lab, pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")]

FLEET = Fleet(name="shop", namespace="kong", uid="3c4f6f3e-token", spec=FleetSpec(proxy_service="s"))
OTHER = Fleet(name="other", namespace="kong", spec=FleetSpec(proxy_service="s"))
NAME = name_server("gw-1", FLEET.admin_service, FLEET.namespace)


class Town:
    """A fleet's authority and identities, and one proxy that runs with them."""

    def __init__(self, directory: Path) -> None:
        self.now = datetime.now(UTC)
        self.directory = directory
        self.authority = create_authority(FLEET, self.now)
        self.trust = self.trusting(self.authority)
        self.controller = issue_controller(FLEET, self.authority, self.trust, self.now)
        self.proxies = issue_proxies(FLEET, self.authority, self.trust, self.now)
        self.node: StandInKong | None = None
        self.ports: dict[str, int] = {}

    def trusting(self, *authorities: Authority) -> TrustBundle:
        return build_bundle([certificate for a in authorities for certificate in a.identity.chain[:1]], self.now)

    def client(self, authority: Authority | None = None, *, at: timedelta = timedelta(0), days: int = 1) -> Identity:
        issuer = authority or self.authority
        return issuer.issue(request_controller("shop"), self.now + at, lifetime=timedelta(days=days))

    def expired(self) -> Identity:
        """Two days pass for the proxy after a certificate of one day was issued."""
        assert self.node is not None
        self.node.faults.clock_offset = timedelta(days=2).total_seconds()
        return self.client()

    @property
    def proxy(self) -> Proxy:
        address = {"admin_port": self.ports["8444"], "proxy_port": self.ports["8000"]}
        return Proxy(name="gw-1", namespace="kong", ip="127.0.0.1", server_name=NAME, **address)

    def context(self, identity: Identity | None) -> ssl.SSLContext:
        return build_client_context(self.trust, identity)

    def write(self, files: IdentityFiles) -> None:
        for name, content in files.data.items():
            (self.directory / name).write_bytes(content)

    async def reload(self, files: IdentityFiles) -> None:
        self.write(files)
        assert self.node is not None
        self.node.hang_up()
        async with asyncio.timeout(20):  # the reload is in force a moment later, and tells nobody
            probe = self.context(self.controller.identity)
            probe.check_hostname, probe.verify_mode = False, ssl.CERT_NONE
            while (await prove("127.0.0.1", self.ports["8444"], NAME, probe)).accepted:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def open_town(directory: Path, proxies: Callable[[Town], IdentityFiles] | None = None) -> AsyncIterator[Town]:
    town = Town(directory)
    town.write(proxies(town) if proxies else town.proxies)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        free = [str(one.getsockname()[1]) for one in sockets]
    environment = proxy_environment(FLEET)
    for old, new in zip(("8444", "8100", "8000", "8443"), free, strict=True):
        town.ports[old] = int(new)
        environment = {k: v.replace(f"0.0.0.0:{old}", f"127.0.0.1:{new}") for k, v in environment.items()}
    mounts = {
        IDENTITY_PATH: str(directory),
        "/kong_prefix/": str(directory / "prefix"),
        "/kong_prefix": str(directory),
    }
    environment["KONVERGE_LAB_KONG_INSTANT"] = "on"
    town.node = StandInKong(Settings.from_env(environment, PodEnvironment(mounts=mounts)))
    await town.node.start()
    try:
        yield town
    finally:
        await town.node.stop()


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with open_town(tmp_path) as opened:
        yield opened


CLIENTS: dict[str, Callable[[Town], Identity | None]] = {
    "no certificate": lambda _: None,
    "other authority": lambda t: t.client(Authority.create("stranger", t.now)),
    "authority of the same name": lambda t: t.client(Authority.create("shop", t.now)),
    "another fleet": lambda t: issue_controller(OTHER, create_authority(OTHER, t.now), t.trust, t.now).identity,
    "expired": lambda t: t.expired(),
    "not yet valid": lambda t: t.client(at=timedelta(days=3)),
    "a proxy's certificate": lambda t: t.proxies.identity,
    "for serving only": lambda t: t.authority.issue(LeafRequest("x", ("serverAuth",)), t.now),
}


@pytest.mark.parametrize("who", sorted(CLIENTS))
async def test_a_client_that_is_not_the_controller_is_refused_and_the_reason_is_told(town: Town, who: str) -> None:
    identity = CLIENTS[who](town)
    shown = await prove("127.0.0.1", town.ports["8444"], NAME, town.context(identity))
    assert (shown.reason, shown.accepted) == (HandshakeReason.CLIENT_REFUSED, False)
    if identity is not None:
        files = IdentityFiles(identity, town.trust, "ca.crt")
        async with GatewayPool(FLEET, files) as pool:
            outcome = await configure_proxy(pool.reach(town.proxy), Revision(number=1, content=b"{}", marker=""))
        assert (outcome.ok, outcome.outcome.reason) == (False, "IdentityRefused")
        then_no_secret(outcome.outcome.message, files)


def then_no_secret(message: str, files: IdentityFiles) -> None:
    for line in files.identity.key.to_pem().decode().splitlines()[1:-1]:
        assert line not in message
    assert "PRIVATE" not in message


async def test_the_controller_is_let_in(town: Town) -> None:
    shown = await prove("127.0.0.1", town.ports["8444"], NAME, town.context(town.controller.identity))
    assert (shown.accepted, shown.protocol) == (True, "TLSv1.3")


@pytest.mark.parametrize("what", ["expired", "retired", "retired, the server unchanged"])
async def test_a_resumed_session_of_an_ended_identity_is_refused(town: Town, what: str) -> None:
    context = town.context(town.controller.identity)
    first = await visit("127.0.0.1", town.ports["8444"], NAME, context)
    assert not first.refusal
    assert town.node is not None
    if what == "expired":
        town.node.faults.clock_offset = timedelta(days=31).total_seconds()
    else:
        successor = create_authority(FLEET, town.now)
        trust = town.trusting(successor)
        # The worst case keeps the server's certificate: nginx binds sessions to it and to the authorities' names.
        leaf = town.proxies.identity if what != "retired" else successor.issue(request_proxies("a", "b"), town.now)
        await town.reload(assemble_files(leaf, trust, town.now))
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    again = await visit("127.0.0.1", town.ports["8444"], NAME, context, session=first.session)
    assert again.refusal
    assert not again.reused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
async def test_old_tls_is_refused_with_the_right_certificate(town: Town, version: ssl.TLSVersion) -> None:
    context = build_client_context(town.trust, town.controller.identity, ssl.TLSVersion.TLSv1_2)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    shown = await prove("127.0.0.1", town.ports["8444"], NAME, context)
    assert (shown.reason, shown.accepted) == (HandshakeReason.TLS_FAILED, False)


def server(request: LeafRequest, authority: Authority | None = None) -> Callable[[Town], IdentityFiles]:
    return lambda town: assemble_files((authority or town.authority).issue(request, town.now), town.trust, town.now)


GOOD = request_proxies(FLEET.admin_service, FLEET.namespace)
SERVERS: dict[str, Callable[[Town], IdentityFiles]] = {
    "another fleet's name": server(request_proxies(OTHER.admin_service, OTHER.namespace)),
    "another namespace": server(request_proxies(FLEET.admin_service, "elsewhere")),
    "no name": server(LeafRequest("x", ("serverAuth",))),
    "only a common name": server(LeafRequest(NAME[:64], ("serverAuth",))),
    "a client's certificate": server(LeafRequest("x", ("clientAuth",), GOOD.dns_names)),
    "other authority": lambda t: server(GOOD, Authority.create("stranger", t.now))(t),
}


@pytest.mark.parametrize("who", sorted(SERVERS))
async def test_a_proxy_that_is_not_of_the_fleet_gets_no_configuration(tmp_path: Path, who: str) -> None:
    async with open_town(tmp_path, SERVERS[who]) as town:
        shown = await prove("127.0.0.1", town.ports["8444"], NAME, town.context(town.controller.identity))
        assert shown.reason is HandshakeReason.SERVER_UNTRUSTED
        async with GatewayPool(FLEET, town.controller) as pool:
            gateway = pool.reach(town.proxy)
            outcome = await configure_proxy(gateway, Revision(number=1, content=b'{"a":1}', marker=""))
            with pytest.raises(VerificationFailed):
                await gateway.identify()
        assert (outcome.ok, outcome.outcome.reason) == (False, "ServerUntrusted")
        then_no_secret(outcome.outcome.message, town.controller)
        assert town.node is not None
        assert town.node.snapshot.hash == "0" * 32


async def test_a_proxy_names_the_authorities_that_it_trusts(town: Town) -> None:
    """What a rotation that follows somebody else's issuer proves its steps by."""
    one, two = town.trust, town.trusting(town.authority, Authority.create("next", town.now))
    assert (await prove_trust(one, exactly=True)(town.proxy)).holds
    assert (await prove_trust(two)(town.proxy)).fault == "it does not trust 1 authorities of the issuer"
    town.write(assemble_files(town.proxies.identity, two, town.now))
    assert town.node is not None
    town.node.hang_up()
    async with asyncio.timeout(20):
        while not (await prove_trust(two, exactly=True)(town.proxy)).holds:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (await prove_trust(one)(town.proxy)).holds
    assert not (await prove_trust(one, exactly=True)(town.proxy)).holds


async def test_the_probes_token_opens_nothing(town: Town) -> None:
    token = probe_token(FLEET)
    async with httpx.AsyncClient(verify=town.context(None), trust_env=False) as http:
        for headers in (
            {},
            {"X-Konverge-Probe": token},
            {"Authorization": f"Bearer {token}"},
            {"Kong-Admin-Token": token},
        ):
            answer = await http.get(
                f"https://127.0.0.1:{town.ports['8444']}/", headers=headers, extensions={"sni_hostname": NAME}
            )
            assert answer.status_code == 400
            assert token not in answer.text


async def test_what_nobody_listens_for_is_unreachable_not_refused(town: Town) -> None:
    async with GatewayPool(FLEET, town.controller) as pool:
        gone = town.proxy.model_copy(update={"admin_port": 1})
        with pytest.raises(KonvergeError) as caught:
            await pool.reach(gone).identify()
    assert isinstance(caught.value, Unavailable)
    assert not isinstance(caught.value, Forbidden)
