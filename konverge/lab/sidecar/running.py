"""The controller as a whole: caches, loop and listeners, until it is told to stop or cannot go on."""

from __future__ import annotations

import asyncio
import logging

from konverge.kube.client import KubeClient
from konverge.lab.pod import PodEnvironment
from konverge.lab.sidecar.admin import KongAdmin
from konverge.lab.sidecar.reporting import Reporter
from konverge.lab.sidecar.serving import listen
from konverge.lab.sidecar.settings import SidecarSettings
from konverge.lab.sidecar.synchronizing import Synchronizer
from konverge.lab.sidecar.watching import ClusterView

log = logging.getLogger(__name__)


class _Stopped(Exception):
    """Ends the task group once the controller has been told to stop."""


async def run_controller(
    kube: KubeClient, settings: SidecarSettings, pod: PodEnvironment, stop: asyncio.Event
) -> None:
    """Run until ``stop``; raises Unavailable where the proxy never comes up, OSError where a port is taken."""
    view = ClusterView(kube)
    async with KongAdmin(settings, pod) as admin:
        synchronizer = Synchronizer(view, admin, Reporter(kube, view, settings), settings)
        async with listen(synchronizer, kube, admin, settings, pod):
            log.info("the controller of %s watches %s", settings.admin_url, kube.server)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(view.run(), name="caches")
                    group.create_task(synchronizer.run(), name="synchronizer")
                    group.create_task(_end(stop), name="stop")
            except* _Stopped:
                log.info("the controller stops")


async def _end(stop: asyncio.Event) -> None:
    await stop.wait()
    raise _Stopped
