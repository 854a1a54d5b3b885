"""Writes what the handshakes showed into the ProxyInstances, and takes proxies that owe a proof out of traffic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from konverge.kube.client import KubeClient
from konverge.model.condition import Outcome, set_condition
from konverge.model.fleet import Fleet
from konverge.model.proxy import Mtls, Phase, Proxy, ProxyOutcome, ProxyStatus
from konverge.model.rotation import ProxyIdentity, StepReport
from konverge.operate.clock import Clock, utc_now
from konverge.operate.fleets import list_instances, write_instance
from konverge.operate.gathering import gather_all
from konverge.operate.onboarding import set_gate

OWED = Outcome(
    reason="IdentityOwed",
    message="it was out of reach, or did not take its new files, during an emergency rotation",
    hint="reference/proxy-reasons.md#identity-owed",
)


def judge_identity(identity: ProxyIdentity, before: Mtls) -> tuple[bool | None, Outcome]:
    """Return whether a proxy's identity is valid, None where nobody knows, and why."""
    if not identity.reachable:
        return None, _outcome("ProxyUnreachable", f"last seen with serial {before.serial or 'none'}: {identity.seen}")
    if not identity.verified:
        return False, _outcome("ServerUntrusted", identity.seen)
    if not identity.accepted:
        return False, _outcome("IdentityRefused", identity.seen)
    if identity.seen:
        return False, _outcome("IdentityOwed", identity.seen)
    return True, _outcome("HandshakeVerified", "")


def _outcome(reason: str, message: str) -> Outcome:
    slugs = {
        "ProxyUnreachable": "proxy-unreachable",
        "ServerUntrusted": "server-untrusted",
        "IdentityRefused": "identity-refused",
        "IdentityOwed": "identity-owed",
        "HandshakeVerified": "configured",
    }
    return Outcome(reason=reason, message=message, hint=f"reference/proxy-reasons.md#{slugs[reason]}")


async def record_identities(
    kube: KubeClient,
    fleet: Fleet,
    proxies: Iterable[Proxy],
    identities: Iterable[ProxyIdentity],
    names: Mapping[str, str],
    clock: Clock = utc_now,
) -> None:
    """Write subject, issuer, serial, expiry, trusted authorities and condition of each proxy that was looked at.

    ``names`` are the subjects of authorities by fingerprint. A proxy without a ProxyInstance gets one.
    """
    seen = {identity.proxy: identity for identity in identities}
    instances = await list_instances(kube, fleet)

    async def write(proxy: Proxy, identity: ProxyIdentity) -> None:
        status = instances.get(proxy.name, ProxyStatus(pod=proxy.name, node=proxy.node, ip=proxy.ip))
        await write_instance(kube, fleet, proxy, attest(status, identity, names, clock))

    await gather_all(write(proxy, seen[proxy.name]) for proxy in proxies if proxy.name in seen)


def attest(
    status: ProxyStatus, identity: ProxyIdentity, names: Mapping[str, str], clock: Clock = utc_now
) -> ProxyStatus:
    """Return a status with what a proxy was seen to show; one that did not answer keeps what it showed last."""
    valid, outcome = judge_identity(identity, status.mtls)
    conditions = set_condition(status.conditions, "IdentityValid", valid, outcome, clock())
    if not identity.reachable:
        return status.model_copy(update={"conditions": conditions})
    mtls = Mtls(
        subject=identity.subject,
        issuer=identity.issuer,
        serial=identity.serial,
        starts=identity.starts,
        expires=identity.expires,
        protocol=identity.protocol,
        verified_at=clock() if identity.verified else status.mtls.verified_at,
        trusted_authorities=tuple(names.get(fingerprint, fingerprint) for fingerprint in identity.trusts),
    )
    return status.model_copy(update={"conditions": conditions, "mtls": mtls})


async def quarantine(
    kube: KubeClient, fleet: Fleet, proxies: Sequence[Proxy], report: StepReport, clock: Clock = utc_now
) -> None:
    """Take proxies that owe a proof out of traffic: they may still let a revoked certificate in.

    Of those that are ready at most half: the traffic has to go somewhere. The gate stays closed until the proxy is
    healed and onboarded; see :mod:`konverge.operate.healing`.
    """
    instances = await list_instances(kube, fleet)
    owing = [proxy for proxy in proxies if proxy.name in report.owing]
    spared = [proxy for proxy in owing if proxy.ready][sum(proxy.ready for proxy in proxies) // 2 :]
    for proxy in owing:
        if proxy in spared:
            continue
        outcome = ProxyOutcome(proxy=proxy.name, ok=False, outcome=OWED, phase=Phase.QUARANTINED)
        await set_gate(kube, proxy, outcome, clock)
        before = instances.get(proxy.name, ProxyStatus(pod=proxy.name, node=proxy.node, ip=proxy.ip))
        conditions = set_condition(before.conditions, "IdentityValid", False, OWED, clock())
        conditions = set_condition(conditions, "TrafficReady", False, OWED, clock())
        changes = {"phase": Phase.QUARANTINED, "traffic_ready": False, "reason": OWED.reason, "message": OWED.message}
        await write_instance(kube, fleet, proxy, before.model_copy(update={**changes, "conditions": conditions}))
