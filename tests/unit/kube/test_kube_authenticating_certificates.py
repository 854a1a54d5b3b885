"""A client certificate of an exec plugin is shown to the API server, and the next one after it was refused."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from konverge.kube.client import KubeClient
from konverge.kube.resources import SERVICES
from konverge.pki.authority import Authority, LeafRequest

VERSION = "client.authentication.k8s.io/v1"


class Site:
    """An API server that knows people by the common name of their certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.accepted, self.seen = folder, "first", list[str]()
        self.authority = Authority.create("shop", datetime.now(UTC))
        self.may = asyncio.Event()

    def issue(self, name: str) -> tuple[str, str]:
        request = LeafRequest(name, ("serverAuth", "clientAuth"), ip_addresses=("127.0.0.1",))
        leaf = self.authority.issue(request, datetime.now(UTC))
        return leaf.chain_pem.decode(), leaf.key.to_pem().decode()

    def give(self, name: str) -> None:
        """Let the plugin hand out a certificate of this name."""
        certificate, key = self.issue(name)
        status = {"clientCertificateData": certificate, "clientKeyData": key}
        document = {"apiVersion": VERSION, "kind": "ExecCredential", "status": status}
        (self.folder / "answer").write_text(json.dumps(document))

    def context(self) -> ssl.SSLContext:
        certificate, key = self.issue("server")
        (self.folder / "server.pem").write_text(certificate + key)
        (self.folder / "ca.pem").write_bytes(self.authority.pem)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.folder / "ca.pem")
        context.load_cert_chain(self.folder / "server.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def write(self, port: int) -> Path:
        arguments = ["-I", "-c", "import sys; print(open(sys.argv[1]).read())", str(self.folder / "answer")]
        plugin = {"apiVersion": VERSION, "command": sys.executable, "args": arguments}
        cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(self.folder / "ca.pem")}
        document = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"exec": plugin}}],
        }
        path = self.folder / "config"
        path.write_text(yaml.safe_dump(document))
        return path

    async def answer(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        subject = request.transport.get_extra_info("peercert")["subject"]
        name = dict(pair for part in subject for pair in part)["commonName"]
        self.seen.append(name)
        if name != self.accepted:
            return web.json_response({}, status=401)
        if "watch" not in request.query:
            return web.json_response({"items": [], "metadata": {"resourceVersion": "7"}})
        response = web.StreamResponse()
        await response.prepare(request)
        for version in "12":
            await response.write(
                json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": version}}}).encode()
                + b"\n"
            )
            await self.may.wait()
        return response


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    opened = Site(tmp_path)
    application = web.Application()
    application.router.add_get("/{path:.*}", opened.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=opened.context()).start()
        opened.give("first")
        opened.write(runner.addresses[0][1])
        yield opened
    finally:
        opened.may.set()
        await runner.cleanup()


async def test_a_certificate_that_is_refused_is_renewed_and_what_is_under_way_goes_on(site: Site) -> None:
    async with await KubeClient.connect(site.folder / "config") as kube:
        watch = kube.watch(SERVICES)
        assert (await anext(watch))[1]["metadata"]["resourceVersion"] == "1"
        site.accepted = "second"
        site.give("second")
        await kube.list_all(SERVICES)
        await kube.list_all(SERVICES)
        assert site.seen == ["first", "first", "second", "second"]
        site.may.set()
        assert [body["metadata"]["resourceVersion"] async for _, body in watch] == ["2"], "the watch was not cut off"
        site.accepted = "third"
        site.give("third")
        kube._login._refused_at = float("-inf")  # type: ignore[union-attr] - no test waits for the pause
        await kube.list_all(SERVICES)
        assert site.seen[-1] == "third"
