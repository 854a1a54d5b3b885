"""An upgrade over a release of an older chart: nothing is deleted while it serves, and both ways out work."""

from __future__ import annotations

import os
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import helm as tool
import pytest

from konverge.kube.client import KubeClient
from konverge.kube.resources import CRDS, DEPLOYMENTS, INGRESS_CLASSES, PODS, SECRETS, SERVICES, Object, Resource

from .objects import build_running_status
from .planes import Plane
from .waiting import wait_for

pytestmark = pytest.mark.kube
CHART = Path(__file__).parents[2] / "charts" / "konverge"
NEW_SELECTOR = {"app.kubernetes.io/name": "konverge-gateway"}
Run = Callable[..., subprocess.CompletedProcess[str]]

LEGACY = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: RELEASE-kong, labels: {helm.sh/chart: kong-3.4.1}}
spec:
  replicas: 2
  selector: {matchLabels: {app.kubernetes.io/name: kong, app.kubernetes.io/instance: RELEASE}}
  template:
    metadata: {labels: {app.kubernetes.io/name: kong, app.kubernetes.io/instance: RELEASE}}
    spec:
      serviceAccountName: RELEASE-kong
      containers: [{name: proxy, image: "kong:3.9"}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: RELEASE-kong}
---
apiVersion: v1
kind: Secret
metadata: {name: RELEASE-kong-validation-webhook-keypair}
stringData: {tls.crt: certificate, tls.key: key}
---
apiVersion: v1
kind: Service
metadata: {name: RELEASE-kong-proxy}
spec:
  type: LoadBalancer
  selector: {app.kubernetes.io/name: kong, app.kubernetes.io/instance: RELEASE}
  ports: [{name: http, port: 80, targetPort: 8000}]
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: RELEASE-class}
spec: {controller: ingress-controllers.konghq.com/kong}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: RELEASE-kong}
rules: [{apiGroups: [""], resources: [services], verbs: [list]}]
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.RELEASE.example.org}
spec:
  group: RELEASE.example.org
  scope: Namespaced
  names: {plural: things, singular: thing, kind: Thing, listKind: ThingList}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
"""


@pytest.fixture(params=["3", "4"], ids=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, plane: Plane, tmp_path: Path) -> Run:
    path = tool.find_helms().get(request.param)
    if path is None:
        pytest.skip(f"helm {request.param} is not cached: python tools/helm.py --fetch")
    environment = {"KUBECONFIG": str(plane.kubeconfig), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([path, *arguments], capture_output=True, text=True, timeout=110, env=environment)

    return run


class Release:
    """A legacy release whose proxies serve, and the upgrades over it."""

    def __init__(self, client: KubeClient, helm: Run, namespace: str, directory: Path) -> None:
        self.client, self.helm, self.namespace = client, helm, namespace
        # Objects without a namespace are named after the release, which must be unique in the cluster.
        self.name = f"r{namespace.rsplit('-', 1)[1]}"
        templates = directory / "kong" / "templates"
        templates.mkdir(parents=True)
        (templates / "all.yaml").write_text(textwrap.dedent(LEGACY).replace("RELEASE", self.name))
        (templates.parent / "Chart.yaml").write_text("apiVersion: v2\nname: kong\nversion: 3.4.1\n")
        self.chart = templates.parent

    async def install(self) -> None:
        """Install it and write the status that its kubelets would write."""
        self.expect("install", self.name, str(self.chart))
        pods = await wait_for(self.client, PODS, self.namespace, lambda pods: len(pods) == 2)
        for number, pod in enumerate(pods):
            status = build_running_status(f"10.244.2.{number + 1}")
            name = pod["metadata"]["name"]
            await self.client.patch(PODS, name, status, self.namespace, subresource="status")
        await wait_for(self.client, DEPLOYMENTS, self.namespace, lambda found: _count_ready(found) == 2)

    def expect(self, *arguments: str) -> str:
        """Run helm and return what it printed; fails with its complaint."""
        done = self.helm(*arguments, "--namespace", self.namespace)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def upgrade(self, carry: bool) -> subprocess.CompletedProcess[str]:
        """Upgrade to our chart, which leaves the Service of the traffic alone."""
        service = f"gateway.service.create=false,gateway.service.name={self.name}-kong-proxy"
        values = ["--reset-values", "--set", f"{service},legacy.carry={str(carry).lower()}"]
        return self.helm("upgrade", self.name, str(CHART), "--namespace", self.namespace, *values)

    async def read(self) -> dict[str, Object]:
        """Return the live legacy objects by kind."""
        wanted: tuple[tuple[Resource, str], ...] = (
            (DEPLOYMENTS, f"{self.name}-kong"),
            (SERVICES, f"{self.name}-kong-proxy"),
            (SECRETS, f"{self.name}-kong-validation-webhook-keypair"),
            (INGRESS_CLASSES, f"{self.name}-class"),
            (CRDS, f"things.{self.name}.example.org"),
        )
        found = {kind.kind: await self.client.find(kind, name, self.namespace) for kind, name in wanted}
        return {kind: body for kind, body in found.items() if body is not None}

    async def move_traffic(self) -> None:
        """Do what a migration does: flip the Service, take the old proxies down."""
        patch = [{"op": "replace", "path": "/spec/selector", "value": NEW_SELECTOR}]
        await self.client.patch(SERVICES, f"{self.name}-kong-proxy", patch, self.namespace, kind="json")
        name = f"{self.name}-kong"
        await self.client.patch(DEPLOYMENTS, name, {"spec": {"replicas": 0}}, self.namespace)
        await wait_for(self.client, DEPLOYMENTS, self.namespace, lambda found: _count_ready(found) == 0)


def _count_ready(found: list[Object]) -> int:
    """Count the ready legacy pods; ours stay Pending, as nobody runs them."""
    return sum(item.get("status", {}).get("readyReplicas", 0) for item in found)


def _identify(objects: dict[str, Object]) -> dict[str, tuple[str, int]]:
    return {kind: (body["metadata"]["uid"], body["metadata"].get("generation", 0)) for kind, body in objects.items()}


@pytest.fixture
async def release(client: KubeClient, namespace: str, helm: Run, tmp_path: Path) -> Release:
    release = Release(client, helm, namespace, tmp_path)
    await release.install()
    return release


async def test_upgrade_that_would_delete_serving_proxies_is_refused(release: Release) -> None:
    before = await release.read()
    done = release.upgrade(carry=False)
    assert done.returncode != 0
    assert f"Deployment {release.name}-kong of the older chart has 2 replicas, 2 of them ready" in done.stderr
    assert "legacy.carry=true" in done.stderr
    assert _identify(await release.read()) == _identify(before)
    assert "STATUS: deployed" in release.expect("status", release.name)


async def test_carried_objects_are_untouched_and_go_at_the_end(release: Release) -> None:
    before = await release.read()
    assert len(before) == 5
    for _ in range(2):
        done = release.upgrade(carry=True)
        assert done.returncode == 0, done.stderr
        assert _identify(await release.read()) == _identify(before)
    await release.move_traffic()
    moved = await release.read()
    assert release.upgrade(carry=True).returncode == 0
    assert _identify(await release.read()) == _identify(moved)
    done = release.upgrade(carry=False)
    assert done.returncode == 0, done.stderr
    await wait_for(release.client, DEPLOYMENTS, release.namespace, lambda found: len(found) == 4)
    after = await release.read()
    assert set(after) == {"Service", "IngressClass", "CustomResourceDefinition"}
    assert after["Service"]["metadata"]["uid"] == before["Service"]["metadata"]["uid"]
    assert after["Service"]["spec"]["selector"] == NEW_SELECTOR
    assert after["Service"]["spec"]["ports"] == before["Service"]["spec"]["ports"]
    done = release.upgrade(carry=False)
    assert done.returncode == 0, done.stderr
    release.expect("uninstall", release.name)
    assert set(await release.read()) == {"Service", "IngressClass", "CustomResourceDefinition"}


async def test_rollback_leads_back_to_the_older_chart(release: Release) -> None:
    before = await release.read()
    assert release.upgrade(carry=True).returncode == 0
    release.expect("rollback", release.name, "1")
    assert _identify(await release.read()) == _identify(before)
    names = {item["metadata"]["name"] for item in await release.client.list_all(DEPLOYMENTS, release.namespace)}
    assert names == {f"{release.name}-kong"}
