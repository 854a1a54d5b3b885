"""One stand-in API server for the tests of issuers and stores; a namespace for each test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from konverge.kube.client import KubeClient
from konverge.kube.crds import build_crds
from konverge.kube.resources import CRDS, NAMESPACES
from tests.integration.pki.cert_manager import CertManager, run_cert_manager
from tests.serving import ApiServer, serve_api


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with serve_api(tmp_path_factory.mktemp("pki-apiserver")) as server:
        yield server


@pytest.fixture
async def kube(api_server: ApiServer) -> AsyncIterator[KubeClient]:
    """A client of the server, which has our CRDs."""
    async with await KubeClient.connect(api_server.kubeconfig) as client:
        for body in build_crds():
            await client.apply(CRDS, body)
        yield client
    await let_connections_end()


async def let_connections_end() -> None:
    """Wait for the TLS goodbye of watches that were cut off: nobody else does, and a closed loop would warn."""
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    async with asyncio.timeout(30):
        while len(selector.get_map()) > 1:  # noqa: ASYNC110 - the loop itself holds one
            await asyncio.sleep(0.01)


@pytest.fixture
async def namespace(kube: KubeClient) -> str:
    name = f"pki-{uuid.uuid4().hex[:8]}"
    await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


@pytest.fixture
async def manager(kube: KubeClient, namespace: str) -> AsyncIterator[CertManager]:
    async with run_cert_manager(kube, namespace) as running:
        yield running
