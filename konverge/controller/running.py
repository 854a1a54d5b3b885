"""Runs the controller of one fleet until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence

from konverge.controller.reconciling import Reconciler
from konverge.controller.serving import serve
from konverge.controller.watching import Signal, Sources
from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient

log = logging.getLogger(__name__)

RESYNC_SECONDS = 5.0
"""Without a change the proxies' hashes are read this often: a restarted proxy is found within it."""
RETRY_SECONDS = 1.0


async def run_controller(kube: KubeClient, fleet: str, namespace: str, hosts: Sequence[str], port: int) -> None:
    """Watch, compile and push until SIGTERM or SIGINT; alive with zero proxies and without the fleet."""
    changed, stopping = Signal(), asyncio.Event()
    sources = Sources(kube, fleet, namespace, changed.set)
    reconciler = Reconciler(kube, sources)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with serve(reconciler, hosts, port):
        work = [asyncio.create_task(cache.run()) for cache in sources.all()]
        work.append(asyncio.create_task(reconcile_forever(reconciler, sources, changed)))
        stop = asyncio.create_task(stopping.wait())
        try:
            done, _ = await asyncio.wait([stop, *work], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()
        finally:
            for task in (stop, *work):
                task.cancel()
            await asyncio.gather(stop, *work, return_exceptions=True)


async def reconcile_forever(reconciler: Reconciler, sources: Sources, changed: Signal) -> None:
    """Reconcile after every settled change, and every few seconds without one."""
    await sources.wait_synced()
    delay = RESYNC_SECONDS
    while True:
        try:
            await reconciler.reconcile()
            delay = RESYNC_SECONDS
        except KonvergeError as error:
            reconciler.last_error = error.message
            reconciler.counters.failures += 1
            log.warning("reconciliation of the fleet: %s: %s", error.reason, error.message)
            delay = RETRY_SECONDS
        await changed.wait(delay)
