"""Takes proxies into traffic and out of it: identity, then configuration, then the readiness gate; in that order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from konverge.errors import NotFound
from konverge.kube.client import KubeClient
from konverge.kube.resources import PODS
from konverge.model.condition import Outcome
from konverge.model.fleet import Fleet
from konverge.model.proxy import CONFIGURED_GATE, ZERO_HASH, Proxy, ProxyOutcome
from konverge.model.revision import Revision
from konverge.operate.clock import Clock, utc_now
from konverge.operate.ports import Gateways
from konverge.operate.recording import Record, describe_proxy, record_outcome
from konverge.operate.visiting import visit_all


async def onboard_proxies(
    kube: KubeClient,
    fleet: Fleet,
    gateways: Gateways,
    revision: Revision,
    proxies: Sequence[Proxy],
    clock: Clock = utc_now,
    *,
    may_act: Callable[[], bool] | None = None,
    record: Record | None = None,
    gate: Callable[[Proxy, ProxyOutcome], Awaitable[None]] | None = None,
) -> list[ProxyOutcome]:
    """Onboard proxies in one batch; each is in traffic as soon as it is proven, and none waits for the others.

    ``may_act`` is asked before each push. ``gate`` takes a proxy's way into traffic, ``record`` its status, in this
    order; without them both are written at once.
    """

    async def note(proxy: Proxy, outcome: ProxyOutcome) -> None:
        if outcome.outcome.reason == "NotLeading":
            return
        if gate is not None:
            await gate(proxy, outcome)
        elif judge_gate(outcome) is not None:
            await set_gate(kube, proxy, outcome, clock)
        if record is not None:
            await record(proxy, describe_proxy(proxy, revision, outcome, clock))
        else:
            await record_outcome(kube, fleet, proxy, revision, outcome, clock)

    return await visit_all(gateways, revision, proxies, fleet.spec.rollout.concurrency, note=note, may_act=may_act)


def judge_gate(outcome: ProxyOutcome) -> bool | None:
    """Say what a visit means for the traffic: in, out, or as it is.

    One that does not answer us is left as it is: it may serve well, and what separates us from it may separate us
    from all of them. One that refuses a configuration but holds another one goes on serving that.
    """
    if outcome.ok:
        return True
    if outcome.loaded_hash == ZERO_HASH or outcome.outcome.reason == "DataPathFailed":
        return False
    return None


async def set_gate(kube: KubeClient, proxy: Proxy, outcome: ProxyOutcome, clock: Clock = utc_now) -> None:
    """Open or close the readiness gate of a pod; a pod that is gone meanwhile is no error."""
    await write_gate(kube, proxy, outcome.ok, outcome.outcome, clock)


async def write_gate(
    kube: KubeClient, proxy: Proxy, into_traffic: bool, outcome: Outcome, clock: Clock = utc_now
) -> None:
    """Write the condition behind the readiness gate of a pod, with the reason; one request."""
    condition = {
        "type": CONFIGURED_GATE,
        "status": "True" if into_traffic else "False",
        "reason": outcome.reason,
        "message": outcome.message[:1024],
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
