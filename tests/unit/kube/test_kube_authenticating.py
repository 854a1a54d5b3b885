"""A login by an exec plugin outlives its first token: renewed ahead, beside the requests, and once after a 401."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from konverge.errors import Forbidden, UsageError
from konverge.kube import authenticating
from konverge.kube.client import UNAUTHORIZED, KubeClient
from konverge.kube.resources import SERVICES

VERSION = "client.authentication.k8s.io/v1"
PLUGIN = """
import json, os, pathlib, sys
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert info["kind"] == "ExecCredential" and info["apiVersion"] == os.environ["VERSION"], info
print((pathlib.Path(sys.argv[1]) / "answer").read_text())
with open(pathlib.Path(sys.argv[1]) / "runs", "a") as runs:
    runs.write("x")
"""


class Site:
    """An API server that knows one token at a time, and a kubeconfig whose user is a plugin's."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.accepted, self.seen = folder, "first", list[str]()
        self.kubeconfig = folder / "config"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.seen.append(token)
        if token != self.accepted:
            return web.json_response({"message": "Unauthorized"}, status=401)
        if "watch" in request.query:
            return web.Response(body=json.dumps({"type": "ADDED", "object": {"metadata": {"name": "a"}}}) + "\n")
        return web.json_response({"items": [], "metadata": {"resourceVersion": "7"}, "got": await request.text()})

    def give(self, token: str, **more: str) -> None:
        """Say what the plugin hands out from now on."""
        self.say(json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": {"token": token, **more}}))

    def say(self, output: str) -> None:
        (self.folder / "answer").write_text(output)

    @property
    def runs(self) -> int:
        path = self.folder / "runs"
        return len(path.read_text()) if path.exists() else 0

    def write(self, port: int) -> None:
        script = self.folder / "plugin.py"
        script.write_text(PLUGIN)
        plugin = {
            "apiVersion": VERSION,
            "command": sys.executable,
            "args": ["-I", str(script), str(self.folder)],
            "env": [{"name": "VERSION", "value": VERSION}],
            "interactiveMode": "Never",
        }
        document = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
            "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "u", "user": {"exec": plugin}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(document))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    opened = Site(tmp_path)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", opened.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        opened.write(runner.addresses[0][1])
        opened.give("first")
        yield opened
    finally:
        await runner.cleanup()


async def test_a_token_that_is_refused_is_renewed_once_and_the_request_sent_again(site: Site) -> None:
    async with await KubeClient.connect(site.kubeconfig) as kube:
        assert kube.namespace == "shop"
        await kube.list_all(SERVICES)
        site.accepted = "second"
        site.give("second")
        answer = json.loads(await kube.request("POST", "/x", body={"a": 1}))
        assert json.loads(answer["got"]) == {"a": 1}, "the body is sent again too"
        assert site.seen == ["first", "first", "second"]
        await kube.list_all(SERVICES)
        assert (site.seen[-1], site.runs) == ("second", 2)


async def test_a_watch_that_is_refused_is_opened_again_with_a_new_token(site: Site) -> None:
    async with await KubeClient.connect(site.kubeconfig) as kube:
        site.accepted = "second"
        site.give("second")
        assert [kind async for kind, _ in kube.watch(SERVICES)] == ["ADDED"]
        assert site.seen == ["first", "second"]


@pytest.mark.parametrize("watching", [False, True])
async def test_a_new_token_that_is_refused_too_is_the_end_of_it(
    site: Site, watching: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticating, "PAUSE_SECONDS", 1000.0)
    async with await KubeClient.connect(site.kubeconfig) as kube:
        site.accepted = "nobody's"
        site.give("second")
        with pytest.raises(Forbidden) as caught:
            await (anext(kube.watch(SERVICES)) if watching else kube.list_all(SERVICES))
        assert caught.value.reason == UNAUTHORIZED
        assert site.seen == ["first", "second"]
        with pytest.raises(Forbidden):
            await kube.list_all(SERVICES)
        assert site.runs == 2, "it does not run for every request that is refused"


async def test_requests_that_are_refused_together_share_one_run(site: Site) -> None:
    async with await KubeClient.connect(site.kubeconfig) as kube:
        site.accepted = "second"
        site.give("second")
        await asyncio.gather(*(kube.list_all(SERVICES) for _ in range(8)))
        assert site.runs == 2


async def test_a_plugin_that_fails_after_a_refusal_is_named(site: Site) -> None:
    async with await KubeClient.connect(site.kubeconfig) as kube:
        site.accepted = "second"
        site.say("no json at all: s3cret")
        with pytest.raises(Forbidden, match=r"could not be renewed: exec: .* printed is no ExecCredential") as caught:
            await kube.list_all(SERVICES)
        assert caught.value.reason == UNAUTHORIZED
        assert "s3cret" not in str(caught.value)


async def test_a_kubeconfig_whose_plugin_fails_is_not_usable(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.say("[]")
    with pytest.raises(UsageError, match="no ExecCredential") as caught:
        await KubeClient.connect(site.kubeconfig)
    assert caught.value.reason == "BadKubeconfig"
    # The pod's account is another one: it does not stand in for a login that fails.
    monkeypatch.setattr("konverge.kube.authenticating_kubeconfig.KUBE_CONFIG_DEFAULT_LOCATION", str(site.kubeconfig))
    monkeypatch.setattr("konverge.kube.authenticating_kubeconfig.load_incluster_config", lambda **_: None)
    with pytest.raises(UsageError, match="no ExecCredential"):
        await KubeClient.connect()


async def test_a_token_with_an_end_is_renewed_before_it(site: Site) -> None:
    now = datetime.now(UTC)
    site.give("first", expirationTimestamp=(now + timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    async with await KubeClient.connect(site.kubeconfig) as kube:
        site.give("second", expirationTimestamp=(now + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"))
        async with asyncio.timeout(60):
            while (await kube.headers())["authorization"] != "Bearer second":  # noqa: ASYNC110 - no request is refused
                await asyncio.sleep(0.02)
        site.accepted = "second"
        await kube.list_all(SERVICES)
        assert (site.seen, site.runs) == (["second"], 2)
