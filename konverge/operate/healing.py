"""Brings the stored identity into force on a proxy that missed a rotation, before it gets configuration or traffic.

A container that restarts reads the projected files by itself; one that was merely cut off still runs with the old
ones and refuses the controller, or shows a certificate that the controller no longer trusts. It is reached through
the kubelet all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from konverge.kube.client import KubeClient
from konverge.model.fleet import Fleet
from konverge.model.proxy import Proxy
from konverge.model.rotation import ProxyWork
from konverge.operate.clock import Clock, utc_now
from konverge.operate.connecting import probe_token
from konverge.operate.identities import load_keys
from konverge.operate.proving import prove_all, prove_serial, prove_trust
from konverge.operate.reloading import Distribution, distribute

HEALED_BY_RELOAD = frozenset({"IdentityRefused", "ServerUntrusted"})
"""Reasons of an onboarding that a reload with the stored files can set right."""

HEALED_AT_ONCE = 4


async def heal_identities(
    kube: KubeClient, fleet: Fleet, proxies: Sequence[Proxy], clock: Clock = utc_now
) -> list[ProxyWork]:
    """Reload proxies that run with other files than the stored ones; one that still owes them says why.

    They carry no traffic, so several are reloaded at once.
    """
    keys = await load_keys(kube, fleet, clock)
    files = keys.proxies.files
    shown = prove_serial(keys.controller.files, files.identity.certificate.serial)
    proof = prove_all(shown, prove_trust(files.bundle, exactly=True))
    what = Distribution(
        kube,
        files,
        proof,
        batch=HEALED_AT_ONCE,
        first_alone=False,
        spare=HEALED_AT_ONCE,
        token=probe_token(fleet),
        stragglers=True,
    )
    return await distribute(proxies, what)
