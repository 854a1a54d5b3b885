"""Any number of per-pod controllers in one process, beside a stand-in Admin API that takes whatever it is sent.

Each is the lab's controller of the legacy topology with a client of its own: its caches, its loop, its status and
events. Only the proxies are shared: what they cost the API server is nothing.

Usage: ``python -m counting.sidecars COUNT KUBECONFIG PUBLISH_SERVICE``. Prints ``{"port": ...}`` when all watch and
have pushed; ``GET /pushes`` on that port tells how many pushes there were. Ends with its parent.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from contextlib import AsyncExitStack

from aiohttp import web

from konverge.kube.client import KubeClient
from konverge.lab.pod import PodEnvironment, die_with_parent
from konverge.lab.sidecar.admin import KongAdmin
from konverge.lab.sidecar.reporting import Reporter
from konverge.lab.sidecar.settings import SidecarSettings
from konverge.lab.sidecar.synchronizing import Synchronizer
from konverge.lab.sidecar.watching import ClusterView

INFO = {"version": "3.9.1", "configuration": {"database": "off", "router_flavor": "traditional"}}
STARTS_AT_ONCE = 4


class Admin:
    """Takes configurations and counts them."""

    def __init__(self) -> None:
        self.pushes = 0

    async def take(self, request: web.Request) -> web.Response:
        """Read and drop a configuration."""
        await request.read()
        self.pushes += 1
        return web.json_response({}, status=201)

    async def tell(self, _: web.Request) -> web.Response:
        """Tell the number of configurations."""
        return web.json_response({"pushes": self.pushes})

    def build(self) -> web.Application:
        """Return the Admin API as the controllers use it."""

        async def status(_: web.Request) -> web.Response:
            return web.json_response({"configuration_hash": "1" * 32})

        async def root(_: web.Request) -> web.Response:
            return web.json_response(INFO)

        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/", root)
        app.router.add_get("/status", status)
        app.router.add_get("/pushes", self.tell)
        app.router.add_post("/config", self.take)
        return app


class Sidecars:
    """The controllers."""

    def __init__(self, port: int, kubeconfig: str, service: str) -> None:
        self._port, self._kubeconfig, self._service = port, kubeconfig, service
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self.all: list[Synchronizer] = []

    async def add(self, number: int) -> None:
        """Start one, and wait until it has pushed."""
        settings = SidecarSettings(
            admin_url=f"http://127.0.0.1:{self._port}",
            publish_service=self._service,
            pod_name=f"legacy-{number}",
            pod_namespace="default",
        )
        kube = await self._stack.enter_async_context(await KubeClient.connect(self._kubeconfig))
        admin = await self._stack.enter_async_context(KongAdmin(settings, PodEnvironment()))
        view = ClusterView(kube)
        synchronizer = Synchronizer(view, admin, Reporter(kube, view, settings), settings)
        self._tasks += [asyncio.create_task(view.run()), asyncio.create_task(synchronizer.run())]
        self.all.append(synchronizer)
        await synchronizer.synced.wait()

    async def run(self) -> None:
        """Wait for the first that cannot go on."""
        await asyncio.gather(*self._tasks)


async def serve(count: int, kubeconfig: str, service: str) -> None:
    """Run for ever."""
    runner = web.AppRunner(Admin().build(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    sidecars, slots = Sidecars(port, kubeconfig, service), asyncio.Semaphore(STARTS_AT_ONCE)

    async def add(number: int) -> None:
        async with slots:
            await sidecars.add(number)

    await asyncio.gather(*(add(number) for number in range(count)))
    print(json.dumps({"port": port}), flush=True)
    await sidecars.run()


if __name__ == "__main__":
    die_with_parent(os.getppid())
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
