"""The controller's own endpoints: /healthz, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

from aiohttp import web

from konverge.controller.reconciling import Reconciler
from konverge.errors import UsageError
from konverge.kube.leasing import Candidate


@asynccontextmanager
async def serve(reconciler: Reconciler, candidate: Candidate, hosts: Sequence[str], port: int) -> AsyncIterator[None]:
    """Listen on hosts and port while the block runs; UsageError where the port is taken."""
    runner = web.AppRunner(build_app(reconciler, candidate), access_log=None)
    await runner.setup()
    try:
        await _listen(runner, hosts, port)
        yield
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, hosts: Sequence[str], port: int) -> None:
    try:
        for host in hosts:
            await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise UsageError(
            f"Cannot listen on {', '.join(hosts)} port {port}: {error.strerror}",
            reason="PortTaken",
            hint="reference/errors.md#port-taken",
        ) from error


def build_app(reconciler: Reconciler, candidate: Candidate) -> web.Application:
    """Return the web application."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        idle = not candidate.leading.is_set()
        ready = reconciler.sources.synced and (idle or reconciler.revision is not None)
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(text=render_metrics(reconciler, candidate), content_type="text/plain")

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app


def render_metrics(reconciler: Reconciler, candidate: Candidate) -> str:
    """Return the counters in Prometheus' text format."""
    lines = [f"konverge_controller_{name}_total {value}" for name, value in asdict(reconciler.counters).items()]
    watches = sum(1 for cache in reconciler.sources.all() if cache.synced.is_set() and not cache.absent)
    lines.append(f"konverge_controller_leading {int(candidate.may_act)}")
    lines.append(f"konverge_controller_watches {watches}")
    lines.append(f"konverge_controller_kubernetes_requests_total {reconciler.kube.requests}")
    number = reconciler.revision.number if reconciler.revision else 0
    lines.append(f"konverge_controller_revision {number}")
    return "\n".join(lines) + "\n"
