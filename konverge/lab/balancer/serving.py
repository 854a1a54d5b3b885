"""The balancer's own HTTP endpoint: /metrics, /healthz, /lab/state and /lab/faults."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web
from pydantic import ValidationError

from konverge.lab.balancer.balancing import Balancer
from konverge.lab.balancer.faults import Faults


def build_application(balancer: Balancer) -> web.Application:
    """Return the application."""

    async def show_health(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def show_metrics(_request: web.Request) -> web.Response:
        return web.Response(text=balancer.counts.render())

    async def show_state(_request: web.Request) -> web.Response:
        return web.json_response(balancer.describe())

    async def show_faults(_request: web.Request) -> web.Response:
        return web.json_response(balancer.listeners.faults.model_dump())

    async def set_faults(request: web.Request) -> web.Response:
        try:
            faults = Faults.model_validate_json(await request.read())
        except ValidationError as error:
            return web.json_response({"error": error.errors(include_url=False)}, status=422)
        balancer.inject(faults)
        return web.json_response(faults.model_dump())

    application = web.Application()
    application.router.add_get("/healthz", show_health)
    application.router.add_get("/metrics", show_metrics)
    application.router.add_get("/lab/state", show_state)
    application.router.add_get("/lab/faults", show_faults)
    application.router.add_put("/lab/faults", set_faults)
    return application


@contextlib.asynccontextmanager
async def serving(balancer: Balancer, host: str, port: int) -> AsyncIterator[tuple[str, int]]:
    """Serve until the block ends; yields the bound address (port 0 is allowed)."""
    runner = web.AppRunner(build_application(balancer), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound = runner.addresses[0]
        yield bound[0], bound[1]
    finally:
        await runner.cleanup()
