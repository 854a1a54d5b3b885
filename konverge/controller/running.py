"""Runs the controller of one fleet until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import dataclass
from pathlib import Path

from konverge.controller.declaring import declare_forever
from konverge.controller.reconciling import Reconciler
from konverge.controller.serving import serve
from konverge.controller.watching import Signal, Sources
from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.leasing import Candidate

log = logging.getLogger(__name__)

RESYNC_SECONDS = 5.0
"""Without a change the proxies' hashes are read this often: a restarted proxy is found within it."""
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """What a controller is told at its start."""

    fleet: str
    namespace: str
    hosts: tuple[str, ...]
    port: int
    identity: str
    """Unique among the candidates for the lease: the pod's name."""
    fleet_file: Path | None = None
    """A ProxyFleet to create, or whose spec to set, before anything else."""


async def run_controller(kube: KubeClient, settings: ControllerSettings) -> None:
    """Watch, compile and push until SIGTERM or SIGINT; alive with zero proxies and without the fleet.

    Every replica keeps its caches current; only the one that holds the lease acts.
    """
    changed, stopping = Signal(), asyncio.Event()
    sources = Sources(kube, settings.fleet, settings.namespace, changed.set)
    candidate = Candidate(kube, f"{settings.fleet}-controller", settings.namespace, settings.identity)
    reconciler = Reconciler(kube, sources)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with serve(reconciler, candidate, settings.hosts, settings.port):
        work = [asyncio.create_task(cache.run()) for cache in sources.all()]
        work.append(asyncio.create_task(candidate.run()))
        work.append(asyncio.create_task(lead_forever(reconciler, candidate, changed, settings)))
        stop = asyncio.create_task(stopping.wait())
        try:
            done, _ = await asyncio.wait([stop, *work], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()
        finally:
            for task in (stop, *work):
                task.cancel()
            await asyncio.gather(stop, *work, return_exceptions=True)


async def lead_forever(
    reconciler: Reconciler, candidate: Candidate, changed: Signal, settings: ControllerSettings
) -> None:
    """Act while the lease is held; wait for it otherwise."""
    await reconciler.sources.wait_synced()
    while True:
        await candidate.leading.wait()
        if settings.fleet_file is not None:
            await declare_forever(reconciler.kube, settings.fleet_file, settings.namespace)
        await reconcile_while_leading(reconciler, candidate, changed)


async def reconcile_while_leading(reconciler: Reconciler, candidate: Candidate, changed: Signal) -> None:
    """Reconcile after every settled change, and every few seconds without one."""
    delay = RESYNC_SECONDS
    while candidate.may_act:
        try:
            await reconciler.reconcile()
            delay = RESYNC_SECONDS
        except KonvergeError as error:
            reconciler.last_error = error.message
            reconciler.counters.failures += 1
            log.warning("reconciliation of the fleet: %s: %s", error.reason, error.message)
            delay = RETRY_SECONDS
        await changed.wait(delay)
