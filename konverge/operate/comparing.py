"""Compares what legacy proxies run with what the fleet runs, before any traffic is moved.

The Admin API of a legacy proxy listens on the pod's loopback only, so it is reached by port-forward. Entities are
paged, never read by ``GET /config``: that blocks workers for seconds where the configuration is large.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

import orjson

from konverge.decide.legacy import ADMIN_URL_PORT, LegacyRelease
from konverge.kong.admin import AdminClient
from konverge.kong.declarative import compare, read_entities
from konverge.kong.marker import remove_marker
from konverge.kube.client import KubeClient
from konverge.kube.resources import Object
from konverge.kube.streaming import PortForward
from konverge.model.revision import Revision
from konverge.operate.workloads import is_ready, list_pods


@dataclass(frozen=True, slots=True)
class Parity:
    """What the comparison found: differences as redacted sentences, and one sentence in all."""

    differences: tuple[str, ...]
    summary: str


async def compare_release(kube: KubeClient, release: LegacyRelease, revision: Revision) -> Parity:
    """Compare every ready legacy proxy with a revision, the revision's marker left out."""
    desired = remove_marker(orjson.loads(revision.content))
    pods = [pod for pod in await list_pods(kube, release.namespace, release.selector) if is_ready(pod)]
    found = await asyncio.gather(*(_compare_pod(kube, pod, desired) for pod in pods))
    differences = tuple(line for lines in found for line in lines)
    summary = (
        f"{len(pods)} legacy proxies run what the fleet runs ({revision.routes} routes)"
        if not differences
        else f"{len(differences)} differences on {sum(1 for lines in found if lines)} of {len(pods)} legacy proxies"
    )
    return Parity(differences, summary)


async def _compare_pod(kube: KubeClient, pod: Object, desired: Object) -> list[str]:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    async with (
        PortForward(kube, name, namespace, ADMIN_URL_PORT) as forward,
        AdminClient(f"https://127.0.0.1:{forward.port}", context=loopback_context(), tunnel=True) as admin,
    ):
        loaded = await read_entities(admin)
    return [f"{name}: {difference}" for difference in compare(loaded, desired)]


def loopback_context() -> ssl.SSLContext:
    """Return a context that does not verify: the chart's sidecar Admin API has a self-signed certificate of its own.

    The connection runs inside the port-forward, which is authenticated by the API server, to the pod's loopback;
    it reads only.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
