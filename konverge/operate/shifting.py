"""Moves the traffic of a Service from legacy pods to the fleet, one pod at a time, and back.

In between the Service selects pods by a label of their own (``konverge.dev/traffic``), so that legacy and new
proxies serve together and each can be taken in or out by itself. Nothing is terminated here: a pod that
left the Service still answers those that have not noticed yet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from konverge.errors import NotFound, Unavailable, VerificationFailed
from konverge.kube.client import KubeClient
from konverge.kube.resources import ENDPOINT_SLICES, SERVICES, Object
from konverge.model.fleet import Fleet
from konverge.model.proxy import Proxy
from konverge.operate.configuring import PROBE_SECONDS, PROBES
from konverge.operate.discovering import discover_proxies
from konverge.operate.fleets import load_fleet
from konverge.operate.ports import DataPath, Gateway, Gateways
from konverge.operate.revisions import list_revisions
from konverge.operate.workloads import POLL, is_ready, label_pod, list_pods, select

TRAFFIC_LABEL = "konverge.dev/traffic"
"""Label of the pods that the Service selects while legacy and new proxies serve together; its value is the fleet."""
ENDPOINTS_SECONDS = 60.0
"""How long the EndpointSlices may take to follow a change of labels or selector."""


async def read_selector(kube: KubeClient, service: str, namespace: str) -> dict[str, str]:
    """Return what a Service selects."""
    body = await kube.get(SERVICES, service, namespace)
    return dict(body["spec"].get("selector") or {})


async def serving_pods(kube: KubeClient, service: str, namespace: str) -> set[str]:
    """Return the pods that the Service's EndpointSlices show as ready."""
    slices = await kube.list_all(ENDPOINT_SLICES, namespace, labels=f"kubernetes.io/service-name={service}")
    return {
        endpoint["targetRef"]["name"]
        for piece in slices
        for endpoint in piece.get("endpoints") or ()
        if endpoint.get("targetRef") and (endpoint.get("conditions") or {}).get("ready", True)
    }


async def wait_serving(
    kube: KubeClient, service: str, namespace: str, pods: set[str], *, absent: bool = False
) -> None:
    """Wait until all of these pods are in the Service's EndpointSlices, or with ``absent`` none of them is."""
    try:
        async with asyncio.timeout(ENDPOINTS_SECONDS):
            while True:
                serving = await serving_pods(kube, service, namespace)
                if (absent and not pods & serving) or (not absent and pods <= serving):
                    return
                await asyncio.sleep(POLL)
    except TimeoutError:
        what = "still serve" if absent else "do not serve"
        raise Unavailable(
            f"Service {namespace}/{service}: {', '.join(sorted(pods))} {what} after {ENDPOINTS_SECONDS:.0f} s",
            reason="EndpointsNotFollowing",
            hint="reference/errors.md#endpoints-not-following",
        ) from None


async def share_traffic(kube: KubeClient, fleet: Fleet, service: str, legacy: Mapping[str, str]) -> None:
    """Let the Service select by the traffic label, which all legacy pods carry: nobody leaves, nobody joins yet."""
    if await read_selector(kube, service, fleet.namespace) != dict(legacy):
        return
    pods = await list_pods(kube, fleet.namespace, legacy)
    for pod in pods:
        await label_pod(kube, pod["metadata"]["name"], fleet.namespace, TRAFFIC_LABEL, fleet.name)
    await select(kube, service, fleet.namespace, {TRAFFIC_LABEL: fleet.name})
    await wait_serving(kube, service, fleet.namespace, {p["metadata"]["name"] for p in pods if is_ready(p)})


async def admit_fleet(kube: KubeClient, fleet: Fleet, gateways: Gateways, service: str, soak: float) -> int:
    """Let ready proxies of the fleet into the Service: one first, then the rest; return how many serve."""
    pods = [pod["metadata"]["name"] for pod in await list_pods(kube, fleet.namespace, fleet.labels) if is_ready(pod)]
    if not pods:
        raise VerificationFailed(
            f"No proxy of fleet {fleet.namespace}/{fleet.name} is ready; traffic stays where it is",
            reason="NoReadyProxy",
            hint="reference/errors.md#no-ready-proxy",
        )
    for group in (pods[:1], pods[1:]):
        for pod in group:
            await label_pod(kube, pod, fleet.namespace, TRAFFIC_LABEL, fleet.name)
        await wait_serving(kube, service, fleet.namespace, set(group))
        await watch_fleet(kube, fleet, gateways, soak)
    return len(pods)


async def dismiss_legacy(
    kube: KubeClient,
    fleet: Fleet,
    gateways: Gateways,
    service: str,
    legacy: Sequence[Object],
    soak: float,
) -> None:
    """Take legacy pods out of the Service one by one; each step is watched before the next."""
    for pod in legacy:
        name = pod["metadata"]["name"]
        with suppress(NotFound):  # a pod that is gone has left by itself
            await label_pod(kube, name, fleet.namespace, TRAFFIC_LABEL, None)
        await wait_serving(kube, service, fleet.namespace, {name}, absent=True)
        await watch_fleet(kube, fleet, gateways, soak)


async def watch_fleet(kube: KubeClient, fleet: Fleet, gateways: Gateways, soak: float) -> None:
    """Watch the fleet for ``soak`` seconds and prove every data path; VerificationFailed names the proxy.

    The controller is at work: a change of the sources may be on its way to the proxies at this moment, so what
    counts is that each routes one of the revisions that may be in force, and a failure counts when it stays.
    """
    await asyncio.sleep(soak)
    deadline = time.monotonic() + PROBE_SECONDS
    while True:
        markers = await _valid_markers(kube, fleet)
        proxies = await discover_proxies(kube, fleet)
        paths = await asyncio.gather(*(_probe_any(gateways.reach(proxy), markers) for proxy in proxies))
        failed = [(proxy, path) for proxy, path in zip(proxies, paths, strict=True) if not path.ok]
        if not failed:
            return
        if time.monotonic() >= deadline:
            raise _data_path_failed(*failed[0])
        await asyncio.sleep(POLL)


async def _valid_markers(kube: KubeClient, fleet: Fleet) -> list[str]:
    """Return the markers of the revisions that a proxy may route now: the newest, the current and the last good."""
    status = (await load_fleet(kube, fleet.name, fleet.namespace)).status
    known = await list_revisions(kube, fleet)
    valid = {status.current_revision, status.last_good_revision, *(spec.number for spec in known[:1])}
    return list(dict.fromkeys(spec.marker for spec in known if spec.number in valid))


async def _probe_any(gateway: Gateway, markers: Sequence[str]) -> DataPath:
    path = DataPath(0, 0, "the fleet has no revision")
    for marker in markers:
        path = await gateway.probe(marker, PROBES)
        if path.ok:
            break
    return path


def _data_path_failed(proxy: Proxy, path: DataPath) -> VerificationFailed:
    return VerificationFailed(
        f"Proxy {proxy.name}: {path.passed} of {path.probes} fresh connections answered: {path.failure}",
        reason="DataPathFailed",
        hint="reference/proxy-reasons.md#data-path-failed",
    )


async def claim_traffic(kube: KubeClient, fleet: Fleet, service: str) -> None:
    """Let the Service select the fleet by its own labels: the end of the shift."""
    await select(kube, service, fleet.namespace, fleet.labels)
    ready = {p["metadata"]["name"] for p in await list_pods(kube, fleet.namespace, fleet.labels) if is_ready(p)}
    await wait_serving(kube, service, fleet.namespace, ready)


async def return_traffic(kube: KubeClient, service: str, namespace: str, selector: Mapping[str, str]) -> None:
    """Give the Service back to the legacy pods; those that join are ready, and nobody else is stopped yet."""
    await select(kube, service, namespace, selector)
    ready = {p["metadata"]["name"] for p in await list_pods(kube, namespace, selector) if is_ready(p)}
    await wait_serving(kube, service, namespace, ready)
