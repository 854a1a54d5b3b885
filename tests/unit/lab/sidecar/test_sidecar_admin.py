from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from konverge.errors import Unavailable
from konverge.lab.legacy.certificates import create_authority, issue_server
from konverge.lab.pod import PodEnvironment
from konverge.lab.sidecar.admin import KongAdmin, resolve_url
from konverge.lab.sidecar.settings import SidecarSettings

POD = PodEnvironment()
REFUSAL = {
    "code": 14,
    "message": "declarative config is invalid",
    "flattened_errors": [{"entity_type": "route", "entity_tags": [], "errors": []}],
}


class Gateway:
    def __init__(self) -> None:
        self.requests: list[tuple[str, str, str]] = []
        self.status, self.body, self.content_type = 201, b"{}", "application/json"

    async def config(self, request: web.Request) -> web.Response:
        body = await request.text()
        self.requests.append((request.path_qs, request.headers["Content-Type"], body))
        return web.Response(status=self.status, body=self.body, content_type=self.content_type)

    async def schema(self, request: web.Request) -> web.Response:
        self.requests.append((request.path, "", ""))
        if request.match_info["name"] == "unknown":
            return web.json_response({"message": "No plugin named 'unknown'"}, status=404)
        return web.json_response({"fields": []})

    async def hash(self, request: web.Request) -> web.Response:
        return web.json_response({"configuration_hash": "c" * 32})


@contextlib.asynccontextmanager
async def gateway_at(tls: ssl.SSLContext) -> AsyncIterator[tuple[Gateway, str]]:
    gateway = Gateway()
    app = web.Application()
    app.router.add_post("/config", gateway.config)
    app.router.add_get("/status", gateway.hash)
    app.router.add_get("/schemas/plugins/{name}", gateway.schema)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield gateway, f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    directory: Path = tmp_path_factory.mktemp("tls")
    pair = issue_server(create_authority("lab"), ["localhost"])
    (directory / "crt").write_bytes(pair.certificate_pem())
    (directory / "key").write_bytes(pair.key_pem())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "crt", directory / "key")
    return context


def settings_for(url: str, *, skip_verify: bool = True) -> SidecarSettings:
    return SidecarSettings(admin_url=url, skip_verify=skip_verify, proxy_timeout=5.0)


async def test_a_push_is_top_level_json_with_both_flags(tls: ssl.SSLContext) -> None:
    async with gateway_at(tls) as (gateway, url), KongAdmin(settings_for(url), POD) as admin:
        answer = await admin.push({"_format_version": "3.0"})
        assert answer.stored
        assert gateway.requests == [
            ("/config?check_hash=1&flatten_errors=1", "application/json", '{"_format_version":"3.0"}')
        ]
        assert await admin.read_hash() == "c" * 32
        assert admin.requests == 2


async def test_a_refusal_carries_its_flattened_errors(tls: ssl.SSLContext) -> None:
    async with gateway_at(tls) as (gateway, url), KongAdmin(settings_for(url), POD) as admin:
        gateway.status, gateway.body = 400, web.json_response(REFUSAL).body  # type: ignore[assignment]
        answer = await admin.push({})
        assert (answer.refused, answer.message) == (True, "declarative config is invalid")
        assert answer.errors[0]["entity_type"] == "route"


@pytest.mark.parametrize("body", [b"<html>400</html>", b"[]", b'{"flattened_errors": {}}'])
async def test_other_bodies_of_a_failure_are_no_errors(tls: ssl.SSLContext, body: bytes) -> None:
    async with gateway_at(tls) as (gateway, url), KongAdmin(settings_for(url), POD) as admin:
        gateway.status, gateway.body = 413, body
        answer = await admin.push({})
        assert (answer.status, answer.stored, answer.refused, answer.errors) == (413, False, False, ())


async def test_a_schema_is_read_once_and_an_unknown_plugin_has_none(tls: ssl.SSLContext) -> None:
    async with gateway_at(tls) as (gateway, url), KongAdmin(settings_for(url), POD) as admin:
        for _ in range(2):
            # An empty list of fields is a schema all the same.
            assert await admin.read_schemas({"cors", "unknown"}) == {"cors": {"fields": []}}
        assert len(gateway.requests) == 2


async def test_without_skipping_the_certificate_is_verified(tls: ssl.SSLContext) -> None:
    async with gateway_at(tls) as (_, url), KongAdmin(settings_for(url, skip_verify=False), POD) as admin:
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await admin.read_hash()


async def test_a_status_that_is_no_success_is_not_ready(tls: ssl.SSLContext) -> None:
    async with gateway_at(tls) as (_, url), KongAdmin(settings_for(url), POD) as admin:
        with pytest.raises(Unavailable, match="404"):
            await admin.read_root()


def test_localhost_is_the_pods_own_loopback() -> None:
    pod = PodEnvironment(ip="127.30.64.2", loopback="127.30.128.2")
    assert resolve_url("https://localhost:8444", pod) == "https://127.30.128.2:8444"
    assert resolve_url("https://kong.test", pod) == "https://kong.test"
    assert resolve_url("https://localhost:8444/", POD) == "https://localhost:8444"
