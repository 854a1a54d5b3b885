"""The webhook as an API server calls it: over TLS, refused with what to write, never in the way when it is down."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from konverge.cli.demo.staging import install_crds
from konverge.controller import admission
from konverge.controller.admission import AdmissionSettings, review_fleet, serve_admission
from konverge.errors import Invalid, KonvergeError, Unavailable, UsageError
from konverge.kube.client import KubeClient
from konverge.kube.resources import CONFIG_REVISIONS, PROXY_FLEETS, Object, Resource
from konverge.pki.authority import Authority, LeafRequest
from tests.serving import serve_api
from tests.unit.operate.fake_kube import FakeKube

pytestmark = pytest.mark.lab
HOOKS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_api(tmp_path_factory.mktemp("api")) as server:
        yield str(server.kubeconfig)


@pytest.fixture
async def kube(kubeconfig: str) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(kubeconfig) as client:
        await install_crds(client)
        yield client


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def authority() -> Authority:
    return Authority.create("shop", datetime.now(UTC))


def write_certificate(authority: Authority, directory: Path) -> None:
    request = LeafRequest("webhook", ("serverAuth",), ip_addresses=("127.0.0.1",))
    leaf = authority.issue(request, datetime.now(UTC))
    (directory / "tls.crt").write_bytes(leaf.chain_pem)
    (directory / "tls.key").write_bytes(leaf.key.to_pem())


@pytest.fixture
async def port(kube: KubeClient, authority: Authority, tmp_path: Path) -> AsyncIterator[int]:
    write_certificate(authority, tmp_path)
    number = free_port()
    async with serve_admission(kube, AdmissionSettings(("127.0.0.1",), number, tmp_path)):
        yield number


def hook(port: int, authority: Authority) -> Object:
    bundle = base64.b64encode(authority.pem).decode()
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "konverge"},
        "webhooks": [
            {
                "name": "fleets.konverge.dev",
                "clientConfig": {"url": f"https://127.0.0.1:{port}/validate", "caBundle": bundle},
                "rules": [
                    {
                        "apiGroups": ["konverge.dev"],
                        "apiVersions": ["v1alpha1"],
                        "operations": ["CREATE", "UPDATE"],
                        "resources": ["proxyfleets"],
                    }
                ],
                "failurePolicy": "Ignore",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "timeoutSeconds": 5,
            }
        ],
    }


def fleet(name: str, **spec: Any) -> Object:
    metadata = {"name": name, "namespace": "default"}
    body = {"apiVersion": "konverge.dev/v1alpha1", "kind": "ProxyFleet", "metadata": metadata}
    return {**body, "spec": {"proxyService": name, **spec}}


async def test_a_bad_fleet_is_refused_with_what_to_write(kube: KubeClient, port: int, authority: Authority) -> None:
    await kube.create(HOOKS, hook(port, authority))
    try:
        with pytest.raises(Invalid, match="did you mean RewriteURIs"):
            await kube.create(PROXY_FLEETS, fleet("bad", features={"RewriteURI": True}))
        with pytest.raises(Invalid, match="revision 7 is not stored; write 0 or one of: none"):
            await kube.create(PROXY_FLEETS, fleet("bad", pinnedRevision=7))
        created = await kube.create(PROXY_FLEETS, fleet("good"))
        windows = [{"timezone": "Europe/Berlinn"}]
        changed = {**created, "spec": {**created["spec"], "identity": {"windows": windows}}}
        with pytest.raises(Invalid, match="no zone"):
            await kube.replace(PROXY_FLEETS, changed)
    finally:
        await kube.delete(HOOKS, "konverge")


async def test_one_that_is_down_holds_nobody_up(kube: KubeClient, authority: Authority) -> None:
    await kube.create(HOOKS, hook(free_port(), authority))
    try:
        await kube.create(PROXY_FLEETS, fleet("unseen", features={"RewriteURI": True}))
    finally:
        await kube.delete(HOOKS, "konverge")


async def test_what_is_no_review_is_told(port: int, authority: Authority) -> None:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    url = f"https://127.0.0.1:{port}/validate"
    async with aiohttp.ClientSession() as session:
        for body in (b"", b"[]", b"{}", b'{"request": 7}', b"\xff"):
            async with session.post(url, data=body, ssl=context) as answer:
                assert answer.status == 400, body


async def call_over(session: aiohttp.ClientSession, number: int, context: ssl.SSLContext) -> bool:
    """Tell whether the webhook shows a certificate that the context trusts; any other failure is raised."""
    try:
        async with session.post(f"https://127.0.0.1:{number}/validate", data=b"", ssl=context) as answer:
            assert answer.status == 400
    except aiohttp.ClientConnectorCertificateError:
        return False
    return True


async def test_renewed_certificates_are_in_force_for_new_connections(
    kube: KubeClient, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "REREAD_SECONDS", 0.001)  # so that handshakes and renewals meet all the time
    write_certificate(authority, tmp_path)
    number = free_port()
    async with serve_admission(kube, AdmissionSettings(("127.0.0.1",), number, tmp_path)):
        for _ in range(5):
            successor = Authority.create("shop", datetime.now(UTC))
            write_certificate(successor, tmp_path)
            context = ssl.create_default_context(cadata=successor.pem.decode())
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
                async with asyncio.timeout(10):
                    while not await call_over(session, number, context):
                        pass
                assert all([await call_over(session, number, context) for _ in range(20)])


async def test_a_pair_that_does_not_fit_leaves_the_one_in_force(
    kube: KubeClient,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(admission, "REREAD_SECONDS", 0.001)
    write_certificate(authority, tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_certificate(Authority.create("shop", datetime.now(UTC)), elsewhere)
    number = free_port()
    async with serve_admission(kube, AdmissionSettings(("127.0.0.1",), number, tmp_path)):
        caplog.clear()
        (tmp_path / "tls.crt").write_bytes((elsewhere / "tls.crt").read_bytes())
        context = ssl.create_default_context(cadata=authority.pem.decode())
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            async with asyncio.timeout(10):
                while "the one in force stays" not in caplog.text:
                    assert await call_over(session, number, context)
            assert await call_over(session, number, context)


async def test_a_directory_without_a_certificate_is_named(tmp_path: Path) -> None:
    settings = AdmissionSettings(("127.0.0.1",), free_port(), tmp_path)
    with pytest.raises(UsageError, match=r"tls\.crt and tls\.key"):
        async with serve_admission(FakeKube(), settings):
            pass


def ask(body: Object, old: Object | None = None, operation: str = "CREATE") -> Object:
    return {"uid": "u-1", "operation": operation, "namespace": "default", "object": body, "oldObject": old}


async def test_pins_are_looked_up_and_rivals_warned_of() -> None:
    kube = FakeKube()
    labels = {"konverge.dev/fleet": "shop"}
    kube.put(CONFIG_REVISIONS, {"metadata": {"name": "shop-3", "labels": labels}, "spec": {"number": 3}})
    kube.put(PROXY_FLEETS, fleet("other", proxyService="web"))
    good = await review_fleet(kube, ask(fleet("shop", proxyService="web", pinnedRevision=3)))
    assert (good["allowed"], good["uid"]) == (True, "u-1")
    assert good["warnings"] == ["spec.proxyService: web is the Service of ProxyFleet other too"]
    bad = await review_fleet(kube, ask(fleet("shop", pinnedRevision=4)))
    assert (bad["allowed"], bad["status"]["code"]) == (False, 422)
    assert "write 0 or one of: 3" in bad["status"]["message"]
    kept = fleet("shop", pinnedRevision=4)
    assert (await review_fleet(kube, ask(kept, kept, "UPDATE")))["allowed"], "what was there before is left alone"


@pytest.mark.parametrize("error", [Unavailable("down"), KonvergeError("odd")])
async def test_an_unreachable_cluster_refuses_nothing(error: KonvergeError) -> None:
    kube = FakeKube()

    def fail() -> BaseException:
        return error

    kube.fail(9, fail, lambda _: True)
    assert (await review_fleet(kube, ask(fleet("shop", pinnedRevision=4))))["allowed"]


async def test_a_deletion_is_always_allowed() -> None:
    request = {"uid": "u", "operation": "DELETE", "object": None, "oldObject": fleet("BAD", features={"x": True})}
    assert await review_fleet(FakeKube(), request) == {"uid": "u", "allowed": True}
