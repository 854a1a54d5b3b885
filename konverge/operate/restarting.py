"""Puts new identity files into force by a rolling restart of the proxies' Deployment.

The template carries a digest of the public files: asking for the same files again restarts nothing. A new pod mounts
the Secret as it is now; its readiness gate keeps it out of traffic until it is configured, so the Deployment's own
pace is the right one.
"""

from __future__ import annotations

import hashlib
import time

from konverge.kube.resources import DEPLOYMENTS
from konverge.model.fleet import Fleet
from konverge.model.rotation import ProxyWork
from konverge.operate.discovering import discover_proxies
from konverge.operate.gathering import gather_all
from konverge.operate.proving import Seen
from konverge.operate.reloading import Distribution, find_out
from konverge.operate.workloads import all_ready, wait_for_deployment
from konverge.pki.files import CERTIFICATE_FILE, PROXY_BUNDLE_FILE, IdentityFiles

DIGEST_ANNOTATION = "konverge.dev/identity-digest"
RESTART_SECONDS = 900.0
"""How long a rolling restart may take; a pod takes its drain of 15 s, its start and its onboarding."""


def digest_files(files: IdentityFiles) -> str:
    """Return a digest of the public files; it changes when a restart is needed."""
    data = files.data
    return hashlib.sha256(data[CERTIFICATE_FILE] + data[PROXY_BUNDLE_FILE]).hexdigest()[:32]


async def restart_proxies(fleet: Fleet, what: Distribution) -> list[ProxyWork]:
    """Restart the proxies where one does not give the proof, wait until all are ready, and prove it on each.

    Unavailable where the Deployment is not ready in time; a proxy that does not give the proof then owes it.
    """
    started = time.monotonic()
    before = await _prove_each(fleet, what)
    if not all(seen.holds for seen in before.values()):
        await _roll(fleet, what)
    after = await _prove_each(fleet, what)
    seconds = round(time.monotonic() - started, 2)
    works = [
        ProxyWork(proxy=name, reloads=int(name not in before), seconds=seconds, owes=not seen.holds, seen=seen.fault)
        for name, seen in after.items()
    ]
    for work in works:
        if what.on_progress is not None:
            what.on_progress(work)
    return works


async def _prove_each(fleet: Fleet, what: Distribution) -> dict[str, Seen]:
    proxies = await discover_proxies(what.kube, fleet)
    found = await gather_all(find_out(what.proof, proxy) for proxy in proxies)
    return {proxy.name: seen for proxy, seen in zip(proxies, found, strict=True)}


async def _roll(fleet: Fleet, what: Distribution) -> None:
    annotations = {DIGEST_ANNOTATION: digest_files(what.files)}
    patch = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    await what.kube.patch(DEPLOYMENTS, fleet.deployment, patch, fleet.namespace)
    await wait_for_deployment(what.kube, fleet.deployment, fleet.namespace, RESTART_SECONDS, all_ready)
