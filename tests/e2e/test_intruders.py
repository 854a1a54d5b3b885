"""The intruder's table: whoever is not the controller of this fleet is refused, and so is who is not its proxy.

Open by design, and not tried here as if they were not: the proxy listeners 8000 and 8443 (the traffic) and the
Status API 8100 (docs/reference/certificates.md). The controller's own ports ask nobody who he is either: what they
give away and what can be done there is what is tried. The proxy of these tests runs with exactly the settings that a
fleet's pods get.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from konverge.errors import Forbidden, KonvergeError, Unavailable, VerificationFailed
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.revision import Revision
from konverge.operate.configuring import configure_proxy
from konverge.operate.connecting import GatewayPool, probe_token
from konverge.operate.identities import create_authority, issue_controller
from konverge.operate.proving import prove_trust
from konverge.pki.authority import Authority, Identity, LeafRequest, request_proxies
from konverge.pki.contexts import build_client_context
from konverge.pki.files import IdentityFiles, assemble_files
from konverge.pki.handshake import HandshakeReason, prove
from konverge.pki.resuming import visit
from tests.e2e.town import FLEET, NAME, Town, open_town

pytestmark = [pytest.mark.lab, pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")]

OTHER = Fleet(name="other", namespace="kong", spec=FleetSpec(proxy_service="s"))


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with open_town(tmp_path) as opened:
        yield opened


CLIENTS: dict[str, Callable[[Town], Identity | None]] = {
    "no certificate": lambda _: None,
    "other authority": lambda t: t.client(Authority.create("stranger", t.now)),
    "another generation of the same name": lambda t: t.client(Authority.create("shop", t.now)),
    "authority of the same subject": lambda t: t.client(t.twin()),
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


@pytest.mark.parametrize("what", ["expired", "retired", "retired, the server unchanged", "retired for its twin"])
async def test_a_resumed_session_of_an_ended_identity_is_refused(town: Town, what: str) -> None:
    context = town.context(town.controller.identity)
    first = await visit("127.0.0.1", town.ports["8444"], NAME, context)
    assert not first.refusal
    assert town.node is not None
    if what == "expired":
        town.node.faults.clock_offset = timedelta(days=31).total_seconds()
    else:
        # A twin has the name of the one that goes and another key: where sessions are resumed it lets them in.
        successor = town.twin() if what == "retired for its twin" else create_authority(FLEET, town.now)
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
    assert (await prove_trust(two)(town.proxy)).fault == "it does not trust 1 authorities that are in force"
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
