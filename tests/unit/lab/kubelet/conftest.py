from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kubelet_fakes import FakeClient

from konverge.lab.addressing import LabNetwork, claim_number
from konverge.lab.kubelet.agent import Kubelet
from konverge.lab.kubelet.settings import Delays, KubeletSettings


@pytest.fixture
async def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def network(tmp_path: Path) -> Iterator[LabNetwork]:
    """Addresses that no other lab of this machine uses."""
    claim = claim_number(tmp_path / "claims")
    yield LabNetwork(claim.number)
    claim.release()


@pytest.fixture
def settings(tmp_path: Path, network: LabNetwork) -> KubeletSettings:
    return KubeletSettings(
        kubeconfig=tmp_path / "none",
        directory=tmp_path / "kubelet",
        address="127.0.0.1",
        port=0,
        zygote=False,
        schedule=False,
        pod_cidr=network.pod_cidr,
        delays=Delays(project=0.05, backoff=0.05),
    )


@pytest.fixture
async def kubelet(client: FakeClient, settings: KubeletSettings) -> AsyncIterator[Kubelet]:
    async with Kubelet(settings, client) as running:
        yield running
