"""The controller's own listeners: health on 10254, metrics on 10255, and the admission webhook where it has a
certificate. The webhook lets everything pass: what it would refuse shows as an Event after translation."""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import AsyncIterator

from aiohttp import web

from konverge.kube.client import KubeClient
from konverge.lab.pod import PodEnvironment
from konverge.lab.sidecar.admin import KongAdmin
from konverge.lab.sidecar.settings import SidecarSettings
from konverge.lab.sidecar.synchronizing import Synchronizer

log = logging.getLogger(__name__)

CERTIFICATE = "/admission-webhook/tls.crt"
KEY = "/admission-webhook/tls.key"
ANY = "0.0.0.0"  # noqa: S104 - resolved to the pod's own addresses in the lab


def build_health(synchronizer: Synchronizer) -> web.Application:
    """Return the probes: alive always, ready once a configuration has been taken."""

    async def is_alive(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def is_ready(_: web.Request) -> web.Response:
        if synchronizer.synced.is_set():
            return web.Response(text="ok")
        return web.Response(status=503, text="no configuration has been taken by the proxy yet")

    app = web.Application()
    app.router.add_get("/healthz", is_alive)
    app.router.add_get("/readyz", is_ready)
    return app


def build_metrics(synchronizer: Synchronizer, kube: KubeClient, admin: KongAdmin) -> web.Application:
    """Return the counters in Prometheus' text format."""

    async def show(_: web.Request) -> web.Response:
        return web.Response(text=format_metrics(synchronizer, kube, admin))

    app = web.Application()
    app.router.add_get("/metrics", show)
    return app


def format_metrics(synchronizer: Synchronizer, kube: KubeClient, admin: KongAdmin) -> str:
    """Return pushes by success, translations, broken objects and requests sent, as the real controller names them."""
    counters = synchronizer.counters
    lines = [
        "# TYPE ingress_controller_configuration_push_count counter",
        *(
            f'ingress_controller_configuration_push_count{{dataplane="{admin.url}",protocol="db-less",'
            f'success="{str(success).lower()}"}} {count}'
            for success, count in counters.pushes.items()
        ),
        "# TYPE ingress_controller_translation_count counter",
        f'ingress_controller_translation_count{{success="true"}} {counters.translations}',
        "# TYPE ingress_controller_translation_broken_resource_count gauge",
        f"ingress_controller_translation_broken_resource_count {counters.problems}",
        "# TYPE rest_client_requests_total counter",
        f'rest_client_requests_total{{host="{kube.server}"}} {kube.requests}',
        "# TYPE konverge_lab_kong_admin_requests_total counter",
        f"konverge_lab_kong_admin_requests_total {admin.requests}",
    ]
    return "\n".join(lines) + "\n"


def build_webhook() -> web.Application:
    """Return an admission webhook that allows everything."""

    async def allow(request: web.Request) -> web.Response:
        review = await request.json()
        response = {"uid": review["request"]["uid"], "allowed": True}
        return web.json_response(
            {"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}
        )

    app = web.Application()
    app.router.add_post("/{path:.*}", allow)
    return app


@contextlib.asynccontextmanager
async def listen(
    synchronizer: Synchronizer,
    kube: KubeClient,
    admin: KongAdmin,
    settings: SidecarSettings,
    pod: PodEnvironment,
) -> AsyncIterator[None]:
    """Keep all listeners open; OSError where a port is taken."""
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_site(build_health(synchronizer), settings.health_port, pod))
        await stack.enter_async_context(_site(build_metrics(synchronizer, kube, admin), settings.metrics_port, pod))
        if settings.webhook_listen not in ("", "off"):
            port = int(settings.webhook_listen.rpartition(":")[2])
            if tls := load_certificate(pod):
                await stack.enter_async_context(_site(build_webhook(), port, pod, tls))
        yield


def load_certificate(pod: PodEnvironment) -> ssl.SSLContext | None:
    """Return the webhook's TLS context, or None where the pod mounts no usable certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(pod.resolve_path(CERTIFICATE), pod.resolve_path(KEY))
    except (OSError, ssl.SSLError) as error:
        log.warning("no admission webhook: %s", error)
        return None
    return context


@contextlib.asynccontextmanager
async def _site(
    app: web.Application, port: int, pod: PodEnvironment, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        for host in pod.resolve_hosts(ANY):
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
        yield
    finally:
        await runner.cleanup()
