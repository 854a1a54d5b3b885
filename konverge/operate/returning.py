"""Waits until a reloaded proxy is back: it routes as before, calls itself ready, and its pod is ready.

A reload refuses no connection, but for 0.6 to 1.9 s ``/status/ready`` answers 503, and a slow machine makes more of
that than the readiness probe forgives. So the next proxy is touched only when the one before is back, and a fleet
never loses all its endpoints.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from konverge.errors import KonvergeError, NotFound, VerificationFailed
from konverge.kong.admin import StatusClient
from konverge.kong.marker import build_request
from konverge.kong.probing import ProbeRequest, ProbeTarget, probe
from konverge.kube.client import KubeClient
from konverge.kube.resources import POD_DISRUPTION_BUDGETS, PODS
from konverge.model.fleet import Fleet
from konverge.model.proxy import Proxy
from konverge.operate.workloads import is_ready

BACK_SECONDS = 60.0
"""How long a proxy may take to be back: the readiness probe of the pods turns it round within 8 s."""
PAUSE = 0.25
HINT = "reference/errors.md#not-ready-again"


class Room:
    """How many of the proxies may be missed by the traffic before no further one is reloaded.

    ``spare`` never leaves fewer than one besides the one that is worked on.
    """

    def __init__(self, proxies: int, spare: int = 0) -> None:
        self._spare = min(spare, max(0, proxies - 2))
        self._missed: list[str] = []

    def miss(self, proxy: Proxy) -> None:
        """Note that a proxy did not come back."""
        self._missed.append(proxy.name)

    def require(self, proxy: Proxy) -> None:
        """Raise where a further proxy out of traffic would be one too many."""
        if len(self._missed) > self._spare:
            raise VerificationFailed(
                f"proxy {proxy.name}: not reloaded, because {', '.join(self._missed)} did not come back from its own"
                " reload",
                reason="NotReadyAgain",
                hint=HINT,
            )


@dataclass(frozen=True, slots=True)
class Standing:
    """What a proxy was to the traffic before it was touched: whether its pod was ready, and how it answered."""

    serving: bool
    answers: frozenset[int] = frozenset()
    """HTTP statuses that fresh connections got for the marker route; 0 is no answer."""


async def find_standing(kube: KubeClient, proxy: Proxy, token: str) -> Standing:
    """Look at a proxy before it is reloaded; ``token`` opens the marker route."""
    if not await _is_pod_ready(kube, proxy):
        return Standing(serving=False)
    return Standing(True, await _ask(proxy, token))


async def wait_until_back(kube: KubeClient, proxy: Proxy, before: Standing, token: str) -> None:
    """Wait until a proxy stands as before; VerificationFailed says what is missing. One without traffic is back."""
    deadline = time.monotonic() + BACK_SECONDS
    while before.serving and (fault := await _find_fault(kube, proxy, before, token)):
        if time.monotonic() > deadline:
            raise VerificationFailed(
                f"proxy {proxy.name}: not ready again {BACK_SECONDS:.0f} s after its reload: {fault}",
                reason="NotReadyAgain",
                hint=HINT,
            )
        await asyncio.sleep(PAUSE)


async def _find_fault(kube: KubeClient, proxy: Proxy, before: Standing, token: str) -> str:
    try:
        async with StatusClient(f"http://{proxy.ip}:{proxy.status_port}") as status:
            readiness = await status.ready()
    except KonvergeError as error:
        return error.message
    if not readiness.ready:
        return readiness.message or "it calls itself not ready"
    answers = await _ask(proxy, token)
    if 0 in answers or not answers <= before.answers | {200}:
        return f"fresh connections got HTTP {sorted(answers)}, before its reload {sorted(before.answers)}"
    return "" if await _is_pod_ready(kube, proxy) else "its pod is not ready"


async def _ask(proxy: Proxy, token: str) -> frozenset[int]:
    marker = build_request(token)
    request = ProbeRequest(marker.path, marker.headers)
    seen = await probe(ProbeTarget(proxy.ip, proxy.proxy_port), request)
    return frozenset(result.status for result in seen.results)


async def _is_pod_ready(kube: KubeClient, proxy: Proxy) -> bool:
    try:
        return is_ready(await kube.get(PODS, proxy.name, proxy.namespace))
    except NotFound:
        return False


async def find_spare(kube: KubeClient, fleet: Fleet, proxies: int) -> int:
    """Return how many proxies the fleet's disruption budget lets be away at once; 1 where nobody says."""
    try:
        budget = await kube.find(POD_DISRUPTION_BUDGETS, fleet.deployment, fleet.namespace)
    except KonvergeError:
        return 1  # the right to read it is the worker's only
    allowed = (budget or {}).get("spec", {}).get("maxUnavailable", 1)
    if isinstance(allowed, str) and allowed.endswith("%") and allowed[:-1].isdigit():
        allowed = proxies * int(allowed[:-1]) // 100
    return max(1, allowed) if isinstance(allowed, int) else 1
