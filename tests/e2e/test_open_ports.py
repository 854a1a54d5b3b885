"""What an intruder can do at the controller's own ports, which ask for no certificate: look, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from konverge.controller.admission import PATH, AdmissionSettings, serve_admission
from konverge.controller.holding import Holder
from konverge.controller.queueing import ChangeQueue
from konverge.controller.serving import build_app, serve
from konverge.controller.watching import Sources
from konverge.kube.leasing import Candidate
from konverge.kube.resources import SECRETS
from konverge.model.fleet import FleetSpec
from konverge.operate.connecting import probe_token
from konverge.operate.fleets import apply_fleet
from konverge.operate.identities import FleetKeys, load_keys
from konverge.pki.authority import Authority, LeafRequest
from tests.unit.operate.fake_kube import FakeKube

pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
METHODS = ("POST", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Controller:
    """A controller that has read its identities, and its port."""

    def __init__(self, kube: FakeKube, holder: Holder, keys: FleetKeys, port: int, token: str) -> None:
        self.kube, self.holder, self.keys, self.port, self.token = kube, holder, keys, port, token

    def paths(self) -> list[str]:
        router = build_app(self.holder).router
        return sorted({resource.canonical for resource in router.resources()})

    def secrets(self) -> list[str]:
        """Lines of every private key that the controller holds, and the token of the probes."""
        held = [self.keys.controller, self.keys.proxies]
        keys = [self.keys.authorities.current.identity.key, *(kept.files.identity.key for kept in held)]
        return [self.token, *(key.to_pem().decode().splitlines()[1] for key in keys)]


@pytest.fixture
async def controller() -> AsyncIterator[Controller]:
    kube = FakeKube()
    fleet = await apply_fleet(kube, "shop", "default", FleetSpec(proxy_service="s"))
    sources = Sources(kube, "shop", "default", ChangeQueue())
    holder = Holder(kube, sources, Candidate(kube, fleet.controller, "default", "c"))
    holder.reconciler.site.states.open(fleet)
    await holder.reconciler.site.reach.open(fleet)
    port = free_port()
    async with serve(holder, ("127.0.0.1",), port):
        yield Controller(kube, holder, await load_keys(kube, fleet), port, probe_token(fleet))
    await holder.reconciler.close()


async def test_nothing_can_be_changed_at_the_controllers_port(controller: Controller) -> None:
    writes = list(controller.kube.writes)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{controller.port}", trust_env=False) as http:
        for path in [*controller.paths(), "/config", "/reload", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd"]:
            for method in METHODS:
                answer = await http.request(method, path, content=b"{}")
                assert answer.status_code in (400, 404, 405), (method, path, answer.status_code)
    assert controller.kube.writes == writes


async def test_no_secret_is_given_away_at_the_controllers_port(controller: Controller) -> None:
    seen = 0
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{controller.port}", trust_env=False) as http:
        for path in controller.paths():
            with contextlib.suppress(httpx.ReadTimeout):  # a stream of changes has no end
                async with http.stream("GET", path, timeout=0.5) as answer:
                    async for text in answer.aiter_text():
                        seen += len(text)
                        assert [secret for secret in controller.secrets() if secret in text] == []
                        assert "PRIVATE" not in text
        metrics = (await http.get("/metrics")).text
    assert seen > 0
    assert 'konverge_certificate_expiry_seconds{fleet="shop",role="controller",pod=""}' in metrics


async def test_the_controllers_port_speaks_no_tls_and_takes_no_identity(controller: Controller) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", controller.port, ssl=context)


class Webhook:
    """The admission port."""

    def __init__(self, kube: FakeKube, port: int, trust: ssl.SSLContext, key: str) -> None:
        self.kube, self.port, self.trust, self.key = kube, port, trust, key
        self.url = f"https://127.0.0.1:{port}"


@pytest.fixture
async def webhook(tmp_path: Path) -> AsyncIterator[Webhook]:
    authority = Authority.create("shop", datetime.now(UTC))
    leaf = authority.issue(LeafRequest("webhook", ("serverAuth",), ip_addresses=("127.0.0.1",)), datetime.now(UTC))
    (tmp_path / "tls.crt").write_bytes(leaf.chain_pem)
    (tmp_path / "tls.key").write_bytes(leaf.key.to_pem())
    kube, port = FakeKube(), free_port()
    trust = ssl.create_default_context(cadata=authority.pem.decode())
    async with serve_admission(kube, AdmissionSettings(("127.0.0.1",), port, tmp_path)):
        yield Webhook(kube, port, trust, leaf.key.to_pem().decode().splitlines()[1])


ALIEN: dict[str, tuple[str, str, bytes]] = {
    "another path": ("POST", "/config", b"{}"),
    "the page": ("GET", "/", b""),
    "looking": ("GET", PATH, b""),
    "deleting": ("DELETE", PATH, b""),
    "no review": ("POST", PATH, b"{}"),
    "no JSON": ("POST", PATH, b"\xff"),
    "too much": ("POST", PATH, b" " * (5 << 20)),
}


@pytest.mark.parametrize("what", sorted(ALIEN))
async def test_the_admission_port_answers_reviews_only(webhook: Webhook, what: str) -> None:
    method, path, content = ALIEN[what]
    async with httpx.AsyncClient(verify=webhook.trust, trust_env=False) as http:
        answer = await http.request(method, webhook.url + path, content=content)
    assert answer.status_code in (400, 404, 405, 413)
    assert webhook.key not in answer.text
    assert webhook.kube.calls == []


async def test_a_review_by_a_stranger_is_answered_and_changes_nothing(webhook: Webhook) -> None:
    """The API server shows no certificate by default, so a stranger needs none either; there is nothing to gain."""
    webhook.kube.put(SECRETS, {"metadata": {"name": "shop-authority"}, "data": {}})
    spec = {"proxyService": "s", "replicas": -1}
    asked: dict[str, Any] = {"uid": "1", "operation": "CREATE", "object": {"metadata": {"name": "x"}, "spec": spec}}
    async with httpx.AsyncClient(verify=webhook.trust, trust_env=False) as http:
        answer = await http.post(webhook.url + PATH, content=json.dumps({"request": asked}))
    assert answer.json()["response"]["allowed"] is False
    assert webhook.kube.writes == []
    assert not any(call.resource == SECRETS for call in webhook.kube.calls)


async def test_old_tls_is_refused_at_the_admission_port(webhook: Webhook) -> None:
    webhook.trust.minimum_version = webhook.trust.maximum_version = ssl.TLSVersion.TLSv1_1
    webhook.trust.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, ConnectionError)):  # the alert, or the reset that overtakes it
        await asyncio.open_connection("127.0.0.1", webhook.port, ssl=webhook.trust)


async def test_plain_text_is_refused_at_the_admission_port(webhook: Webhook) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(httpx.TransportError):
            await http.post(f"http://127.0.0.1:{webhook.port}{PATH}", content=b"{}")
