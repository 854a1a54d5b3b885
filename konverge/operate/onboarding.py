"""Takes proxies into traffic and out of it: identity, then configuration, then the readiness gate; in that order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from konverge.errors import NotFound
from konverge.kube.client import KubeClient
from konverge.kube.resources import PODS
from konverge.model.fleet import Fleet
from konverge.model.proxy import CONFIGURED_GATE, Proxy, ProxyOutcome
from konverge.model.revision import Revision
from konverge.operate.clock import Clock, utc_now
from konverge.operate.configuring import configure_proxy
from konverge.operate.gathering import gather_all
from konverge.operate.ports import Gateways
from konverge.operate.syncing import record_outcome


async def onboard_proxies(
    kube: KubeClient,
    fleet: Fleet,
    gateways: Gateways,
    revision: Revision,
    proxies: Sequence[Proxy],
    clock: Clock = utc_now,
) -> list[ProxyOutcome]:
    """Onboard proxies in one batch; one that fails keeps its gate closed and does not hold up the others."""
    slots = asyncio.Semaphore(fleet.spec.rollout.concurrency)

    async def onboard(proxy: Proxy) -> ProxyOutcome:
        async with slots:
            outcome = await configure_proxy(gateways.reach(proxy), revision)
            await set_gate(kube, proxy, outcome, clock)
            await record_outcome(kube, fleet, proxy, revision, outcome, clock)
            return outcome

    return await gather_all(onboard(proxy) for proxy in proxies)


async def set_gate(kube: KubeClient, proxy: Proxy, outcome: ProxyOutcome, clock: Clock = utc_now) -> None:
    """Open or close the readiness gate of a pod; a pod that is gone meanwhile is no error."""
    condition = {
        "type": CONFIGURED_GATE,
        "status": "True" if outcome.ok else "False",
        "reason": outcome.outcome.reason,
        "message": outcome.outcome.message[:1024],
        "lastTransitionTime": clock().strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    try:
        await kube.patch(
            PODS,
            proxy.name,
            {"status": {"conditions": [condition]}},
            proxy.namespace,
            kind="strategic",
            subresource="status",
        )
    except NotFound:
        return
