"""A validating webhook for ProxyFleets: says what the CustomResourceDefinition cannot know, before it is stored.

The definition's own rules hold without it. It adds names of feature gates, time zones, whether a pinned revision is
stored and whether two fleets claim one Service. It is meant to be registered with ``failurePolicy: Ignore``: a
controller that is down holds nobody up, and neither does an API server that does not answer its questions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from konverge.errors import KonvergeError, UsageError
from konverge.kube.client import KubeClient
from konverge.kube.resources import CONFIG_REVISIONS, PROXY_FLEETS, Object
from konverge.operate.validating import Finding, find_faults

log = logging.getLogger(__name__)

PATH = "/validate"
LARGEST_REVIEW = 4 << 20
"""Bytes: object and old object, each at most about 1.5 MiB in etcd."""
REREAD_SECONDS = 60.0
"""A renewed certificate is in force for new connections within this time."""


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """Where the webhook listens. ``directory`` holds tls.crt and tls.key, as a TLS Secret is mounted."""

    hosts: tuple[str, ...]
    port: int
    directory: Path


async def review_fleet(kube: KubeClient, request: Object) -> Object:
    """Return the response to the request of an AdmissionReview (admission.k8s.io/v1)."""
    body = request.get("object")
    if request.get("operation") not in ("CREATE", "UPDATE") or not isinstance(body, dict):
        return {"uid": request.get("uid", ""), "allowed": True}
    old = request.get("oldObject") or None
    findings = find_faults(body, old)
    warnings: list[str] = []
    if not findings:
        namespace = str(request.get("namespace") or (body.get("metadata") or {}).get("namespace") or "")
        try:
            findings = await _check_pin(kube, namespace, body, old)
            warnings = await _find_rivals(kube, namespace, body)
        except KonvergeError as error:
            log.warning("admission of a ProxyFleet goes on without the cluster: %s", error.message)
    return _answer(str(request.get("uid", "")), findings, warnings)


def _answer(uid: str, findings: Sequence[Finding], warnings: Sequence[str]) -> Object:
    response: Object = {"uid": uid, "allowed": not findings}
    if findings:
        message = "; ".join(str(finding) for finding in findings)
        response["status"] = {"code": 422, "reason": "Invalid", "message": message}
    if warnings:
        response["warnings"] = list(warnings)
    return response


async def _check_pin(kube: KubeClient, namespace: str, body: Object, old: Object | None) -> list[Finding]:
    """Refuse a pin on a revision that is not stored; one that is kept as it was is left alone."""
    pinned = int((body["spec"] or {}).get("pinnedRevision") or 0)
    if not pinned or pinned == int(((old or {}).get("spec") or {}).get("pinnedRevision") or 0):
        return []
    labels = f"konverge.dev/fleet={body['metadata'].get('name', '')}"
    items = await kube.list_all(CONFIG_REVISIONS, namespace, labels=labels)
    stored = sorted(int(item["spec"]["number"]) for item in items)
    if pinned in stored:
        return []
    known = ", ".join(str(number) for number in stored[-10:]) or "none"
    return [Finding("spec.pinnedRevision", f"revision {pinned} is not stored; write 0 or one of: {known}")]


async def _find_rivals(kube: KubeClient, namespace: str, body: Object) -> list[str]:
    """Warn of another fleet on the same Service: both would claim its pods' traffic during a migration."""
    service, name = body["spec"].get("proxyService"), body["metadata"].get("name")
    fleets = await kube.list_all(PROXY_FLEETS, namespace)
    rivals = [
        item["metadata"]["name"]
        for item in fleets
        if item["metadata"]["name"] != name and (item.get("spec") or {}).get("proxyService") == service
    ]
    return [f"spec.proxyService: {service} is the Service of ProxyFleet {rival} too" for rival in sorted(rivals)]


def build_admission(kube: KubeClient) -> web.Application:
    """Return the application that answers POST /validate."""

    async def validate(request: web.Request) -> web.Response:
        try:
            review: Any = orjson.loads(await request.read())
            asked = review["request"]
            answer = await review_fleet(kube, asked)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return web.Response(status=400, text="this is no AdmissionReview of admission.k8s.io/v1\n")
        document = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}
        return web.Response(body=orjson.dumps(document), content_type="application/json")

    app = web.Application(client_max_size=LARGEST_REVIEW)
    app.router.add_post(PATH, validate)
    return app


@contextlib.asynccontextmanager
async def serve_admission(kube: KubeClient, settings: AdmissionSettings | None) -> AsyncIterator[None]:
    """Listen with TLS while the block runs; without settings nothing listens. UsageError names what is unusable."""
    if settings is None:
        yield
        return
    certificate = _Certificate(settings.directory, await _load(settings.directory))
    runner = web.AppRunner(build_admission(kube), access_log=None)
    await runner.setup()
    renewing = asyncio.create_task(certificate.renew_forever())
    try:
        for host in settings.hosts:
            try:
                await web.TCPSite(runner, host, settings.port, ssl_context=certificate.listening).start()
            except OSError as error:
                raise UsageError(
                    f"Cannot listen on {host} port {settings.port}: {error.strerror}",
                    reason="PortTaken",
                    hint="reference/errors.md#port-taken",
                ) from error
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        await runner.cleanup()


class _Certificate:
    """What new connections are shown. A context is never loaded twice: a handshake would meet it half changed."""

    def __init__(self, directory: Path, context: ssl.SSLContext) -> None:
        self._directory = directory
        self._newest = self.listening = context
        context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """OpenSSL calls this at every handshake, with or without a server name."""
        connection.context = self._newest

    async def renew_forever(self) -> None:
        """Read the files again and again: a Secret that is renewed is projected anew."""
        while True:
            await asyncio.sleep(REREAD_SECONDS)
            try:
                self._newest = await _load(self._directory)
            except UsageError as error:
                log.warning("%s; the one in force stays", error.message)


async def _load(directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        await asyncio.to_thread(context.load_cert_chain, directory / "tls.crt", directory / "tls.key")
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"The certificate of the webhook cannot be read from tls.crt and tls.key in {directory}:"
            f" {error.strerror or type(error).__name__}",
            reason="BadCertificate",
            hint="reference/errors.md#bad-certificate",
        ) from error
    return context
