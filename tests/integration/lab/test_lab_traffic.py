"""What a Service of the lab does to connections while its pods come and go."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from lab_tools import Http, ask, echo, until

from konverge.errors import Busy
from konverge.kube.client import KubeClient
from konverge.kube.resources import DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS, SERVICES, Object
from konverge.lab.controllers.caching import Cache
from konverge.lab.supervisor.balancing import ask_balancer
from konverge.lab.supervisor.detaching import start_detached
from konverge.lab.supervisor.settings import LabSettings
from konverge.lab.supervisor.states import LabState
from konverge.lab.supervisor.stopping import stop_lab
from konverge.lab.supervisor.waiting import wait_for_address, wait_for_deployment, wait_until

pytestmark = pytest.mark.lab

SYNC = 0.4


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabState]:
    home = tmp_path_factory.mktemp("lab")
    settings = LabSettings(name="traffic", home=home, sync_delay=SYNC)
    yield start_detached(settings, lambda what, how: None)
    stop_lab(home, "traffic")


@pytest.fixture
async def client(lab: LabState) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(lab.kubeconfig) as client:
        yield client


async def deploy(client: KubeClient, name: str, replicas: int = 2, **service: object) -> tuple[str, int]:
    """Create an echo application and return its ClusterIP once it answers there."""
    for item in echo(name, replicas, **service):
        await client.create(DEPLOYMENTS if item["kind"] == "Deployment" else SERVICES, item)
    await wait_for_deployment(client, "default", name, 30)
    found = await wait_for_address(client, "default", name, 10)
    address = found["spec"]["clusterIP"], 9000
    await answers(address)
    return address


async def answers(address: tuple[str, int], seconds: float = 10.0) -> str:
    """Return the first answer; nothing tells when a listener opens."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await ask(address)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.02)


async def pods_of(client: KubeClient, name: str) -> list[Object]:
    return await client.list_all(PODS, "default", labels=f"app={name}")


async def test_every_kind_of_address_answers(client: KubeClient, lab: LabState) -> None:
    address = await deploy(client, "kinds", type="LoadBalancer")
    service = await client.get(SERVICES, "kinds", "default")
    node = lab.server.removeprefix("https://").partition(":")[0]
    balanced = service["status"]["loadBalancer"]["ingress"][0]["ip"]
    assert balanced.split(".")[2] == "8"
    for place in (address, (node, service["spec"]["ports"][0]["nodePort"]), (balanced, 9000)):
        assert (await answers(place)).startswith("kinds-")


async def test_connections_are_spread_and_each_stays_where_it_is(client: KubeClient) -> None:
    address = await deploy(client, "spread", 3)
    assert len({await ask(address) for _ in range(60)}) == 3
    connection = await Http.connect(address)
    assert len({(await connection.get())["pod"] for _ in range(20)}) == 1
    connection.close()


async def test_dead_pod_gets_new_connections_until_the_change_is_noticed(client: KubeClient, lab: LabState) -> None:
    address = await deploy(client, "late", 2)
    node = lab.server.removeprefix("https://").partition(":")[0]
    victim = (await pods_of(client, "late"))[0]["metadata"]["name"]
    await ask_balancer(node, "PUT", "/lab/faults", {"frozen": True})
    await client.delete(PODS, victim, "default", grace=0)
    await wait_for_deployment(client, "default", "late", 30)

    async def fails() -> bool:
        try:
            await ask(address)
        except (OSError, asyncio.IncompleteReadError):
            return True
        return False

    async def is_well() -> bool:
        return not any([await fails() for _ in range(20)])

    # This window is what a migration that trusts readiness alone runs into.
    await until(fails)
    await ask_balancer(node, "PUT", "/lab/faults", {})
    await until(is_well)
    assert victim not in {await ask(address) for _ in range(20)}


async def test_connection_survives_that_its_pod_leaves_the_service(client: KubeClient) -> None:
    address = await deploy(client, "leaving", 1)
    connection = await Http.connect(address)
    pod = (await connection.get())["pod"]
    await client.patch(PODS, pod, {"metadata": {"labels": {"app": "elsewhere"}}}, "default")

    def replaced(cache: Cache) -> bool:
        names = [
            item["metadata"]["name"]
            for item in cache.items("default")
            if (item["metadata"].get("labels") or {}).get("app") == "leaving"
        ]
        return len(names) == 1 and pod not in names

    await wait_until(client, PODS, replaced, 20, lambda _: "replacement")
    await wait_for_deployment(client, "default", "leaving", 20)
    async with asyncio.timeout(10):
        while True:
            try:
                if await ask(address) != pod:
                    break
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.02)
    assert (await connection.get())["pod"] == pod
    connection.close()


async def test_service_without_endpoints_refuses(client: KubeClient) -> None:
    address = await deploy(client, "empty", 1)
    await client.patch(DEPLOYMENTS, "empty", {"spec": {"replicas": 0}}, "default")
    async with asyncio.timeout(15):
        while True:
            try:
                await ask(address)
            except ConnectionRefusedError:
                break
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.02)


async def test_rollout_keeps_its_bounds_with_real_pods(client: KubeClient) -> None:
    await deploy(client, "roll", 4)
    seen: list[tuple[int, int]] = []

    def note(cache: Cache) -> bool:
        items = [item for item in cache.items("default") if item["metadata"]["name"] == "roll"]
        status = items[0]["status"]
        seen.append((status.get("availableReplicas", 0), status.get("replicas", 0)))
        return status.get("updatedReplicas") == 4 and status.get("replicas") == 4 and len(seen) > 2

    env = [{"name": "VERSION", "value": "2"}]
    container = {"name": "echo", "env": env}
    patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
    await client.patch(DEPLOYMENTS, "roll", patch, "default", kind="strategic")
    await wait_until(client, DEPLOYMENTS, note, 40, lambda _: "rollout")
    assert min(available for available, _ in seen) >= 3
    assert max(total for _, total in seen) <= 5
    sets = await client.list_all(REPLICA_SETS, "default", labels="app=roll")
    assert sorted(item["spec"]["replicas"] for item in sets) == [0, 4]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
async def test_kubectl_follows_and_undoes_a_rollout(client: KubeClient, lab: LabState, tmp_path: Path) -> None:
    await deploy(client, "undo", 2)

    async def kubectl(*words: str) -> str:
        command = ["kubectl", "--kubeconfig", str(lab.kubeconfig), "--cache-dir", str(tmp_path), *words]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    await kubectl("set", "env", "deployment/undo", "VERSION=2")
    assert "successfully rolled out" in await kubectl("rollout", "status", "deployment/undo", "--timeout=40s")
    history = await kubectl("rollout", "history", "deployment/undo")
    assert [line.split()[0] for line in history.splitlines()[2:] if line.strip()] == ["1", "2"]
    await kubectl("rollout", "undo", "deployment/undo")
    await kubectl("rollout", "status", "deployment/undo", "--timeout=40s")
    found = await client.get(DEPLOYMENTS, "undo", "default")
    assert "env" not in found["spec"]["template"]["spec"]["containers"][0]
    assert found["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"


async def test_budget_lets_one_eviction_through_at_a_time(client: KubeClient) -> None:
    await deploy(client, "budget", 2)
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "budget", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "budget"}}},
    }
    await client.create(POD_DISRUPTION_BUDGETS, budget)

    def allows_one(cache: Cache) -> bool:
        item = cache.get("default", "budget")
        return item is not None and (item.get("status") or {}).get("disruptionsAllowed") == 1

    async def evict(pod: str) -> None:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "default"}}
        await client.request("POST", PODS.path("default", pod, "eviction"), body=body)

    for _ in range(2):
        await wait_until(client, POD_DISRUPTION_BUDGETS, allows_one, 30, lambda _: "budget")
        names = [
            pod["metadata"]["name"]
            for pod in await pods_of(client, "budget")
            if not pod["metadata"].get("deletionTimestamp")
        ]
        await evict(names[0])
        with pytest.raises(Busy):
            await evict(names[1])
