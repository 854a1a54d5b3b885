"""The controller's own endpoints: /healthz, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

from aiohttp import web

from konverge.controller.holding import Holder
from konverge.controller.page.serving import add_page
from konverge.decide.expiring import certificate_metrics
from konverge.errors import UsageError
from konverge.operate.observing import view_shown


@asynccontextmanager
async def serve(holder: Holder, hosts: Sequence[str], port: int) -> AsyncIterator[None]:
    """Listen on hosts and port while the block runs; UsageError where the port is taken."""
    runner = web.AppRunner(build_app(holder), access_log=None)
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


def build_app(holder: Holder) -> web.Application:
    """Return the web application: the page for people, the rest for kubelet and Prometheus."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        return web.json_response({"ready": holder.ready}, status=200 if holder.ready else 503)

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(text=render_metrics(holder), content_type="text/plain")

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    add_page(app, holder)
    return app


def render_metrics(holder: Holder) -> str:
    """Return the counters in Prometheus' text format."""
    reconciler, candidate = holder.reconciler, holder.candidate
    lines = [f"konverge_controller_{name}_total {value}" for name, value in asdict(reconciler.counters).items()]
    watches = sum(1 for cache in reconciler.sources.all() if cache.synced.is_set() and not cache.absent)
    lines.append(f"konverge_controller_proxies {len(reconciler.site.roster.members)}")
    lines.append(f"konverge_controller_status_writes_total {reconciler.site.states.writes}")
    lines.append(f"konverge_controller_events_dropped_total {reconciler.site.states.recorder.dropped}")
    lines.append(f"konverge_controller_leading {int(candidate.may_act)}")
    lines.append(f"konverge_controller_watches {watches}")
    lines.append(f"konverge_controller_kubernetes_requests_total {reconciler.kube.requests}")
    number = reconciler.revision.number if reconciler.revision else 0
    lines.append(f"konverge_controller_revision {number}")
    lines += render_certificates(holder)
    return "\n".join(lines) + "\n"


def render_certificates(holder: Holder) -> list[str]:
    """Return when the stored certificates expire, and those that the proxies showed; nothing before they are read."""
    site = holder.reconciler.site
    stored = site.reach.certificates
    if not stored:
        return []
    views = [*stored, *view_shown(site.states.statuses.values(), stored[-1])]
    return certificate_metrics(site.states.name.rpartition("/")[2], views, site.clock())
