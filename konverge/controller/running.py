"""Runs the controller of one fleet until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from konverge.controller.admission import AdmissionSettings, serve_admission
from konverge.controller.declaring import declare_forever
from konverge.controller.holding import Holder
from konverge.controller.leading import lead
from konverge.controller.queueing import ChangeQueue
from konverge.controller.reconciling import Reconciler
from konverge.controller.serving import serve
from konverge.controller.watching import Sources
from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.leasing import Candidate

log = logging.getLogger(__name__)

GRACE_SECONDS = 20.0
"""How long a wave may take to its end after SIGTERM; the pod's own grace period is 30 s by default."""
FLUSH_SECONDS = 5.0
"""How long the last states may take to be written."""


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
    admission: AdmissionSettings | None = None
    """Where the validating webhook listens; None: nowhere."""


async def run_controller(kube: KubeClient, settings: ControllerSettings) -> None:
    """Watch, compile and push until SIGTERM or SIGINT; alive with zero proxies and without the fleet.

    Every replica keeps its caches current; only the one that holds the lease acts.
    """
    stopping, queue = asyncio.Event(), ChangeQueue()
    sources = Sources(kube, settings.fleet, settings.namespace, queue)
    candidate = Candidate(kube, f"{settings.fleet}-controller", settings.namespace, settings.identity)
    candidate.on_success = sources.pace.note_success
    holder = Holder(kube, sources, candidate)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with serve(holder, settings.hosts, settings.port), serve_admission(kube, settings.admission):
        caches = [asyncio.create_task(cache.run()) for cache in sources.all()]
        campaign = asyncio.create_task(candidate.run())
        leading = asyncio.create_task(lead_forever(holder, queue, settings, stopping))
        stop = asyncio.create_task(stopping.wait())
        work = [*caches, campaign, leading]
        try:
            done, _ = await asyncio.wait([stop, *work], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()
            # What is under way ends at the boundary of a wave while the lease is still held and renewed.
            await asyncio.wait([leading], timeout=GRACE_SECONDS)
        finally:
            for task in (stop, *work):
                task.cancel()
            await asyncio.gather(stop, *work, return_exceptions=True)


async def lead_forever(
    holder: Holder, queue: ChangeQueue, settings: ControllerSettings, stopping: asyncio.Event
) -> None:
    """Act while the lease is held; wait for it otherwise; return when told to stop."""
    await _first(holder.sources.wait_synced(), stopping)
    while not stopping.is_set():
        await _first(holder.candidate.leading.wait(), stopping)
        if not stopping.is_set() and holder.candidate.may_act:
            await lead_once(holder, queue, settings, stopping)


async def lead_once(
    holder: Holder, queue: ChangeQueue, settings: ControllerSettings, stopping: asyncio.Event
) -> None:
    """Act until the lease is lost, then stop at once, or until told to stop, then at the boundary of a wave.

    What an earlier term knew of the proxies does not count: another leader may have acted since.
    """
    reconciler = holder.renew(settings.identity)
    work = asyncio.create_task(_declare_and_lead(reconciler, queue, settings))
    lost = asyncio.create_task(holder.candidate.wait_lost())
    stop = asyncio.create_task(stopping.wait())
    tasks: list[asyncio.Task[Any]] = [work, lost, stop]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if work in done:
            work.result()
        if stop in done and lost not in done:
            reconciler.site.stopping = True
            tasks.append(asyncio.create_task(_finish(reconciler)))
            await asyncio.wait([lost, tasks[-1]], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await reconciler.abandon()
        await reconciler.close()
        holder.sources.compiler.rest()


async def _declare_and_lead(reconciler: Reconciler, queue: ChangeQueue, settings: ControllerSettings) -> None:
    if settings.fleet_file is not None:
        await declare_forever(reconciler.kube, settings.fleet_file, settings.namespace)
    await lead(reconciler, queue)


async def _finish(reconciler: Reconciler) -> None:
    """End what is under way, and write what became of it."""
    await reconciler.stop()
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await reconciler.site.states.flush()
    except (KonvergeError, TimeoutError) as error:
        log.warning("the last states are not written: %s", error or "time is up")


async def _first(work: Coroutine[Any, Any, object], stopping: asyncio.Event) -> None:
    """Wait for a piece of work or for the end, whichever comes first."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
