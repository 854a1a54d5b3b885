"""The harness of ``make test-kube``: a real control plane for the session, an administrator's client per test.

KONVERGE_TEST_KUBECONFIG names a running plane (its directory is that of the file); without it one is started.
Tests marked ``kube`` are skipped where the programs are missing, with the names of what is missing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml

from konverge.kube.client import KubeClient
from konverge.kube.resources import NAMESPACES
from konverge.lab.realplane.assets import look_up_assets

from .planes import POD_ADDRESS, Plane, in_private_network, run_plane

TOOLS = Path(__file__).parents[2] / "tools"
sys.path.insert(0, str(TOOLS))


@pytest.fixture(scope="session")
def assets_or_skip() -> None:
    assets = look_up_assets()
    if assets.missing:
        pytest.skip(f"no real control plane: {', '.join(assets.missing)} missing (make kube-assets)")


@pytest.fixture(scope="session")
def plane(assets_or_skip: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    if given := os.environ.get("KONVERGE_TEST_KUBECONFIG"):
        path = Path(given)
        server = yaml.safe_load(path.read_text())["clusters"][0]["cluster"]["server"]
        yield Plane(path, path.parent, server)
        return
    directory = tmp_path_factory.mktemp("plane")
    address = POD_ADDRESS if in_private_network() else "127.0.0.1"
    with run_plane("--dir", str(directory), "--bind", address) as (_, ready):
        yield Plane(Path(str(ready["kubeconfig"])), directory, str(ready["server"]))


@pytest.fixture
async def client(plane: Plane) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(plane.kubeconfig) as client:
        yield client


@pytest.fixture
async def namespace(client: KubeClient) -> AsyncIterator[str]:
    """A namespace of its own, deleted in the background afterwards; its ServiceAccount comes a moment later."""
    created = await client.create(NAMESPACES, {"metadata": {"generateName": "kube-test-"}})
    name = created["metadata"]["name"]
    yield name
    await client.delete(NAMESPACES, name)
