"""The CRDs are structural for a real API server, and the fleet that the chart renders fits them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import helm as tool
import pytest
import yaml

from konverge.errors import Invalid
from konverge.kube.client import KubeClient
from konverge.kube.crds import build_crds
from konverge.kube.resources import CRDS, PROXY_FLEETS, Object

from .planes import Plane
from .waiting import wait_for

pytestmark = pytest.mark.kube
CHART = Path(__file__).parents[2] / "charts" / "konverge"


@pytest.fixture
async def crds(client: KubeClient) -> list[Object]:
    """The definitions, established; later tests find them established already."""
    for body in build_crds():
        await client.apply(CRDS, body)
    names = {body["metadata"]["name"] for body in build_crds()}
    return await wait_for(client, CRDS, "", lambda found: names <= _established(found))


def _established(found: list[Object]) -> set[str]:
    return {item["metadata"]["name"] for item in found if _holds(item, "Established")}


def _holds(item: Object, kind: str) -> bool:
    conditions = item.get("status", {}).get("conditions") or ()
    return any(entry["type"] == kind and entry["status"] == "True" for entry in conditions)


def test_schemas_are_structural(crds: list[Object]) -> None:
    ours = [item for item in crds if item["spec"]["group"] == "konverge.dev"]
    assert len(ours) == len(build_crds())
    for item in ours:
        assert not _holds(item, "NonStructuralSchema"), item["metadata"]["name"]


async def test_fleet_of_the_chart_is_accepted_whole(
    client: KubeClient, plane: Plane, namespace: str, crds: list[Object]
) -> None:
    body = _render_fleet(namespace)
    created = await client.create(PROXY_FLEETS, body)
    # A pin is the operator's: the chart leaves it out, and the server fills in that there is none.
    assert created["spec"] == {**body["spec"], "pinnedRevision": 0}
    shown = plane.kubectl("get", "proxyfleets", "-n", namespace)
    assert "REVISION" in shown
    broken = {**body, "metadata": {"name": "broken", "namespace": namespace}}
    broken["spec"] = {**body["spec"], "replicas": -1}
    with pytest.raises(Invalid, match=r"spec\.replicas"):
        await client.create(PROXY_FLEETS, broken)


def _render_fleet(namespace: str) -> Object:
    helms = tool.find_helms()
    if not helms:
        pytest.skip("no helm is cached: python tools/helm.py --fetch")
    command = ["template", "edge", str(CHART), "--namespace", namespace, "-s", "templates/fleet.yaml"]
    done = subprocess.run([next(iter(helms.values())), *command], capture_output=True, text=True, check=True)
    body: Object = yaml.safe_load(yaml.safe_load(done.stdout)["data"]["fleet.yaml"])
    return body
