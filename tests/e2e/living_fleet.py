"""A fleet that lives in a lab: proxies, a controller and its Service, with the sample applications behind it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import orjson

from konverge.cli.demo.staging import NAMESPACE, SERVICE, install_crds
from konverge.decide.objects import build_controller_objects, build_fleet_objects
from konverge.kong.outcomes import PushOutcome
from konverge.kong.probing import ProbeRequest, ProbeTarget, probe_until_ok
from konverge.kube.resources import INGRESSES, NAMESPACES, PODS, Object
from konverge.lab.legacy.sample import SHOP
from konverge.lab.supervisor.furnishing import SAMPLE_NAMESPACE, furnish
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import Proxy
from konverge.operate.connecting import open_gateways
from konverge.operate.discovering import discover_proxies
from konverge.operate.fleets import apply_fleet, list_instances, load_fleet
from konverge.operate.identities import ensure_identity
from konverge.operate.orchestrator import client_environment
from konverge.operate.reloading import PROXY_CONTAINER
from konverge.operate.workloads import all_ready, apply_objects, list_pods, wait_for_deployment
from tests.e2e.scenario import FLEET, Scenario

IMAGE = "konverge/konverge:lab"
READY_SECONDS = 120.0


CONTROL_PORT = 8199


async def given_a_living_fleet(scenario: Scenario, proxies: int = 3, **spec: Any) -> Fleet:
    """Deploy a fleet with a controller, and wait until every proxy carries traffic.

    Proxies have the stand-in's control endpoint, so that faults can be given to them: :func:`give_fault`.
    """
    kube = scenario.kube
    await furnish(kube, legacy=0, sample=True)
    await install_crds(kube)
    await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    fleet = await apply_fleet(kube, FLEET, NAMESPACE, FleetSpec(proxy_service=SERVICE, replicas=proxies, **spec))
    await ensure_identity(kube, fleet)
    objects = [*build_fleet_objects(fleet), *build_controller_objects(fleet, IMAGE), serve(fleet)]
    await apply_objects(kube, [_let_control(body) for body in objects])
    await wait_for_deployment(kube, fleet.deployment, NAMESPACE, READY_SECONDS, all_ready)
    await scenario.lab.wait_ready(SAMPLE_NAMESPACE, timeout=READY_SECONDS)
    return fleet


def _let_control(body: Object) -> Object:
    """Switch the control endpoint of the stand-in on where an object is the Deployment of the proxies."""
    containers = body["spec"]["template"]["spec"]["containers"] if body["kind"] == "Deployment" else []
    for container in containers:
        if container["name"] == PROXY_CONTAINER:
            address = {"name": "LAB_CONTROL_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
            control = {"name": "KONVERGE_LAB_KONG_CONTROL", "value": f"$(LAB_CONTROL_IP):{CONTROL_PORT}"}
            container["env"] = [*container.get("env", ()), address, control]
    return body


async def give_fault(proxy: Proxy, **faults: Any) -> None:
    """Make something go wrong in a proxy, or end it: fields of :class:`konverge.lab.kong.faults.Faults`."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
        answer = await http.put(f"http://{proxy.ip}:{CONTROL_PORT}/faults", json=faults)
        assert answer.status_code == 200, answer.text


def serve(fleet: Fleet) -> Object:
    """The Service that carries the fleet's traffic."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": NAMESPACE},
        "spec": {
            "type": "LoadBalancer",
            "selector": dict(fleet.labels),
            "ports": [{"name": "proxy", "port": 80, "targetPort": 8000, "protocol": "TCP"}],
        },
    }


def host_of(name: str) -> str:
    """The host of an added route: nothing else is routed there."""
    return f"{name}.added.lab.test"


async def add_route(scenario: Scenario, name: str) -> None:
    """Add an Ingress with a host of its own to the sample."""
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "shop", "port": {"number": 80}}}}
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": SAMPLE_NAMESPACE},
        "spec": {"ingressClassName": "kong", "rules": [{"host": host_of(name), "http": {"paths": [path]}}]},
    }
    await scenario.kube.apply(INGRESSES, body)


async def proxies_of(scenario: Scenario) -> list[Proxy]:
    """The proxies of the fleet as they are found."""
    return await discover_proxies(scenario.kube, await scenario.fleet())


async def answers(scenario: Scenario, host: str, path: str = "/") -> dict[str, int]:
    """What every proxy answers to a request on a fresh connection; 0 where it does not."""
    found: dict[str, int] = {}
    for proxy in await proxies_of(scenario):
        found[proxy.name] = 0
        with suppress(httpx.TransportError):
            async with httpx.AsyncClient(timeout=10, trust_env=False) as http:
                url = f"http://{proxy.ip}:{proxy.proxy_port}{path}"
                found[proxy.name] = (await http.get(url, headers={"Host": host})).status_code
    return found


async def until_all_answer(scenario: Scenario, count: int, status: int, host: str, path: str = "/") -> None:
    """Wait until there are so many proxies and all of them answer so; a failure tells what is known."""
    found: dict[str, int] = {}

    async def check() -> bool:
        nonlocal found
        found = await answers(scenario, host, path)
        return list(found.values()) == [status] * count

    try:
        await until(check, f"{host}{path} is not answered with {status} by {count} proxies")
    except AssertionError as error:
        raise AssertionError(f"{error}: {found}\n{await describe(scenario)}") from None


async def describe(scenario: Scenario) -> str:
    """What the fleet and its controller say of themselves, for a failed test."""
    fleet = await scenario.fleet()
    lines = [f"current {fleet.status.current_revision}, last good {fleet.status.last_good_revision}"]
    for name, state in (await list_instances(scenario.kube, fleet)).items():
        lines.append(f"{name}: {state.phase} {state.loaded_revision} {state.reason}: {state.message}")
    for log in scenario.lab.settings.files.rglob("*.log"):
        if "controller" in str(log) and NAMESPACE in str(log):
            lines += [f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-60:]]
    return "\n".join(lines)


async def push_by_hand(scenario: Scenario, proxy: Proxy, content: bytes) -> PushOutcome:
    """Post a configuration to one proxy, past the controller."""
    async with open_gateways(scenario.kube, await scenario.fleet()) as gateways:
        return await gateways.reach(proxy).push(content)


async def hashes_of(scenario: Scenario) -> dict[str, str]:
    """What every proxy says that it has loaded; "" where it does not answer."""
    fleet = await load_fleet(scenario.kube, FLEET, NAMESPACE)
    async with open_gateways(scenario.kube, fleet) as gateways:
        found: dict[str, str] = {}
        for proxy in await proxies_of(scenario):
            found[proxy.name] = ""
            with suppress(Exception):
                found[proxy.name] = await gateways.reach(proxy).loaded_hash()
        return found


async def until_balanced(scenario: Scenario) -> None:
    """Wait until many fresh connections in a row are served through the load balancer, which follows later."""
    host, port = await scenario.lab.address_of(SERVICE, NAMESPACE)
    wanted = ProbeRequest("/", {"Host": SHOP})
    result = await probe_until_ok(ProbeTarget(host, port), wanted, within=120.0, connections=60)
    assert result.ok, result.describe()


class Ended:
    """A command that has ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        """What it printed with -o json."""
        return orjson.loads(self.out)


async def command(scenario: Scenario, *words: str, kubeconfig: Path | None = None) -> Ended:
    """Run a konverge command on the scenario's fleet, as an operator does; as somebody else with their kubeconfig."""
    access = str(kubeconfig or scenario.lab.kubeconfig)
    fleet = (FLEET,) if words[0] == "status" else ("--fleet", FLEET)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from konverge.cli.main import run; run()", *words),
        *(*fleet, "-n", NAMESPACE, "--kubeconfig", access),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**client_environment(scenario.prefect), "COLUMNS": "200"},
    )
    try:
        async with asyncio.timeout(120):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    assert b"Traceback" not in err, err.decode()
    return Ended(process.returncode, out.decode(), err.decode())


async def kill_containers(scenario: Scenario, pods: Sequence[str]) -> int:
    """SIGKILL to every process that listens on the address of one of the pods; returns how many there were."""
    bodies = [await scenario.kube.get(PODS, name, NAMESPACE) for name in pods]
    found = await asyncio.to_thread(find_listeners, {body["status"]["podIP"] for body in bodies})
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


def find_listeners(addresses: set[str]) -> set[int]:
    """The processes that listen on addresses; those of a lab's pods belong to that lab alone (proc(5), net/tcp)."""
    wanted = {int.from_bytes(socket.inet_aton(address), sys.byteorder) for address in addresses}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = "0A"
    sockets = {
        f"socket:[{row[9]}]" for row in rows if row[3] == listening and int(row[1].partition(":")[0], 16) in wanted
    }
    found = set()
    for place in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(place) in sockets:
                found.add(int(place.parts[2]))
    return found


async def pod_names(scenario: Scenario, labels: dict[str, str]) -> list[str]:
    """The names of the pods with labels."""
    return [pod["metadata"]["name"] for pod in await list_pods(scenario.kube, NAMESPACE, labels)]


def controller_labels(fleet: Fleet) -> dict[str, str]:
    """Labels of the controller's pods."""
    return {"app.kubernetes.io/name": "konverge-controller", "app.kubernetes.io/instance": fleet.name}


async def delete_pods(scenario: Scenario, names: Sequence[str]) -> None:
    """Delete pods without grace: what they had on their disks is gone."""
    await asyncio.gather(*(scenario.kube.delete(PODS, name, NAMESPACE, grace=0) for name in names))


async def until(check: Callable[[], Awaitable[Any]], what: str, seconds: float = 180.0) -> Any:
    """Wait for something in other processes that tell nobody; returns what the check returned."""
    try:
        async with asyncio.timeout(seconds):
            while not (found := await check()):  # noqa: ASYNC110 - other processes
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"after {seconds:.0f} s: {what}") from None
    return found
