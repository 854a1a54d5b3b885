"""The commands against a cluster: the lab's stand-in API server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from made_objects import ingress, path, service, slice_of
from typer.testing import CliRunner

from konverge.cli.main import app
from konverge.kong.declarative import serialise
from konverge.kong.marker import add_marker
from konverge.kube.client import KubeClient
from konverge.kube.crds import build_crds
from konverge.kube.resources import CRDS, ENDPOINT_SLICES, INGRESSES, NAMESPACES, SERVICES
from konverge.model.fleet import FleetSpec
from konverge.model.revision import Revision
from konverge.operate.fleets import apply_fleet
from konverge.operate.revisions import store_revision
from konverge.translate import for_cluster, render
from tests.serving import serve_api

pytestmark = pytest.mark.lab

OBJECTS = [service(), slice_of("svc", "10.0.0.1", addressType="IPv4"), ingress("ing", path("/a"))]


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with serve_api(tmp_path_factory.mktemp("apiserver")) as server:
        asyncio.run(furnish(server.kubeconfig))
        yield server.kubeconfig


async def furnish(kubeconfig: Path) -> None:
    """Create the objects, a fleet, and its revision 1, which carries the marker."""
    async with await KubeClient.connect(kubeconfig) as kube:
        await kube.create(NAMESPACES, {"metadata": {"name": "ns"}})
        for resource, value in zip((SERVICES, ENDPOINT_SLICES, INGRESSES), OBJECTS, strict=True):
            await kube.create(resource, value)
        for definition in build_crds():
            await kube.create(CRDS, definition)
        fleet = await apply_fleet(
            kube, "shop", "ns", FleetSpec.model_validate({"adminService": "admin", "proxyService": "proxy"})
        )
        document = render(OBJECTS, for_cluster()).document
        marked = add_marker(document, fleet="shop", revision="0" * 32, token="token-token", flavor="traditional")
        await store_revision(kube, fleet, Revision(number=0, content=serialise(marked)))


def run(kubeconfig: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--kubeconfig", str(kubeconfig)])


def test_render_from_the_cluster(kubeconfig: Path) -> None:
    result = run(kubeconfig, "render", "--from-cluster")
    assert result.exit_code == 0, result.output
    document = yaml.safe_load(result.stdout)
    (route,) = document["services"][0]["routes"]
    assert route["paths"] == ["/a/", "~/a$"]
    assert document["upstreams"][0]["targets"] == [{"target": "10.0.0.1:8080"}]
    assert any(tag.startswith("k8s-uid:") for tag in route["tags"])


def test_diff_of_the_cluster_a_file_and_a_revision(kubeconfig: Path, tmp_path: Path) -> None:
    file = tmp_path / "document.yaml"
    file.write_text(run(kubeconfig, "render", "--from-cluster").stdout)
    assert run(kubeconfig, "diff", "cluster", str(file)).exit_code == 0
    result = run(kubeconfig, "diff", "revision:1", "cluster", "--fleet", "shop", "-n", "ns", "-o", "json")
    assert result.exit_code == 2
    fields = {(item["kind"], item["field"]) for item in orjson.loads(result.stdout)["differences"]}
    assert fields == {("routes", "tags"), ("services", "tags"), ("upstreams", "tags")}, "only the uids differ"
    missing = run(kubeconfig, "diff", "revision:7", "cluster", "--fleet", "shop", "-n", "ns")
    assert missing.exit_code == 1


def test_explain_from_the_cluster(kubeconfig: Path) -> None:
    result = run(kubeconfig, "explain", "EndpointSlice/ns/svc-1")
    assert result.exit_code == 0, result.output
    assert "  upstreams svc.ns.80.svc\n" in result.stdout
