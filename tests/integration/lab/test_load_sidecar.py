"""The per-pod controller as a process, with its release's own account and RBAC, on the stand-in API server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest
from aiohttp import web

from konverge.kube.client import KubeClient
from konverge.kube.resources import INGRESSES, PODS, SERVICES, Object, Resource
from konverge.lab.apiserver.serving import ApiServer
from konverge.lab.apiserver.state import Settings
from konverge.lab.legacy import kong_crds, legacy_release, sample_applications
from konverge.lab.legacy.certificates import create_authority, issue_server
from konverge.lab.sidecar.admin import ZEROS
from konverge.lab.sidecar.watching import WATCHED

pytestmark = pytest.mark.lab
POD_IP, POD_LOOPBACK = f"127.19.64.{os.getpid() % 250 + 2}", f"127.19.128.{os.getpid() % 250 + 2}"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
CONSUMERS = Resource("configuration.konghq.com", "v1", "kongconsumers", "KongConsumer")
PLURALS = {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies", "IngressClass": "ingressclasses"}
CLUSTER = {"Namespace", "ClusterRole", "ClusterRoleBinding", "IngressClass", "CustomResourceDefinition"}
CLUSTER |= {"ValidatingWebhookConfiguration"}


def resource_of(body: Object) -> Resource:
    group, _, version = body["apiVersion"].rpartition("/")
    kind = body["kind"]
    plural = PLURALS.get(kind) or kind.lower().removesuffix("y") + ("ies" if kind.endswith("y") else "s")
    return Resource(group, version, plural, kind, kind not in CLUSTER)


async def create_all(kube: KubeClient, objects: list[Object]) -> None:
    for body in objects:
        await kube.create(resource_of(body), body)


@dataclass
class Gateway:
    """Kong's Admin API over TLS, as far as the controller uses it."""

    posted: asyncio.Queue[dict[str, Any]]
    hash: str = ZEROS

    async def handle(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            document = orjson.loads(await request.read())
            self.hash = "a" * 32
            self.posted.put_nowait(document)
            return web.json_response({}, status=201)
        if request.path == "/status":
            return web.json_response({"configuration_hash": self.hash})
        if request.path == "/":
            return web.json_response({"version": "3.9.3", "configuration": {"router_flavor": "traditional"}})
        return web.json_response({"message": "Not found"}, status=404)

    @contextlib.asynccontextmanager
    async def listen(self, directory: Path) -> AsyncIterator[None]:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, POD_LOOPBACK, 8444, ssl_context=make_certificate(directory)).start()
        try:
            yield
        finally:
            await runner.cleanup()


def make_certificate(directory: Path) -> ssl.SSLContext:
    pair = issue_server(create_authority("kong"), ["localhost"])
    (directory / "tls.crt").write_bytes(pair.certificate_pem())
    (directory / "tls.key").write_bytes(pair.key_pem())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    return context


async def mount_account(server: ApiServer, kube: KubeClient, directory: Path) -> None:
    path = "/api/v1/namespaces/kong/serviceaccounts/edge-kong/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = orjson.loads(await kube.request("POST", path, body=request))["status"]["token"]
    write_account(directory, token, server.directory / "ca.crt")


def write_account(directory: Path, token: str, authority: Path) -> None:
    (directory / "token").write_text(token)
    (directory / "ca.crt").write_bytes(authority.read_bytes())


def container_environment(release: list[Object], server: ApiServer, mounts: dict[str, str]) -> dict[str, str]:
    """Return what the lab's kubelet would give the container."""
    deployment = next(body for body in release if body["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["name"] == "ingress-controller"
    url = urlsplit(server.url)
    given = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    return {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH")},
        **given,
        "POD_NAME": "edge-kong-0",
        "POD_NAMESPACE": "kong",
        "KUBERNETES_SERVICE_HOST": url.hostname or "",
        "KUBERNETES_SERVICE_PORT": str(url.port),
        "CONTROLLER_PROXY_SYNC_SECONDS": "0.1",
        "CONTROLLER_INIT_CACHE_SYNC_DURATION": "10ms",
        "KONVERGE_LAB_POD_IP": POD_IP,
        "KONVERGE_LAB_POD_LOOPBACK": POD_LOOPBACK,
        "KONVERGE_LAB_POD_NAMESPACE": "kong",
        "KONVERGE_LAB_MOUNTS": orjson.dumps(mounts).decode(),
    }


@contextlib.asynccontextmanager
async def controller(environment: dict[str, str], log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "konverge.lab.sidecar", env=environment, stderr=file
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def watch_until(kube: KubeClient, resource: Resource, accept: Any) -> Object:
    _, version = await kube.list_at(resource)
    for body in await kube.list_all(resource):
        if accept(body):
            return body
    async for _, body in kube.watch(resource, version=version):
        if accept(body):
            return body
    raise AssertionError("the watch ended")


def is_programmed(body: Object) -> bool:
    conditions = body.get("status", {}).get("conditions", [])
    return any(item["type"] == "Programmed" and item["status"] == "True" for item in conditions)


async def test_the_release_configures_its_proxy_with_its_own_rights(tmp_path: Path) -> None:
    print(f"pod {POD_IP}, loopback {POD_LOOPBACK}")
    settings = Settings(directory=tmp_path / "api", rbac=True, persist=False)
    gateway = Gateway(asyncio.Queue())
    release = legacy_release("edge", "kong", 1)
    account, webhook = make_directories(tmp_path, release)
    async with (
        ApiServer(settings) as server,
        await KubeClient.connect(server.kubeconfig) as kube,
        gateway.listen(tmp_path),
    ):
        await prepare_cluster(kube, release)
        await mount_account(server, kube, account)
        environment = container_environment(
            release, server, {ACCOUNT: str(account), "/admission-webhook": str(webhook)}
        )
        async with controller(environment, tmp_path / "log") as process, asyncio.timeout(60):
            document = await gateway.posted.get()
            routes = [route for service in document["services"] for route in service["routes"]]
            assert "shop.lab.test" in {host for route in routes for host in route["hosts"]}
            assert document["consumers"][0]["keyauth_credentials"]
            ingress = await watch_until(kube, INGRESSES, lambda body: body.get("status", {}).get("loadBalancer"))
            assert ingress["status"]["loadBalancer"]["ingress"] == [{"ip": "127.19.8.2"}]
            await watch_until(kube, CONSUMERS, is_programmed)
            await check_listeners()
            watched = {
                plural for (verb, plural), count in server.metrics.running.items() if verb == "WATCH" and count
            }
            assert watched == {resource.plural for resource in WATCHED}
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    # Its own ClusterRole was enough for everything it did.
    assert server.metrics.total(code=403) == 0, (tmp_path / "log").read_text()


def make_directories(directory: Path, release: list[Object]) -> tuple[Path, Path]:
    account, webhook = directory / "account", directory / "webhook"
    account.mkdir()
    webhook.mkdir()
    secret = next(body for body in release if body["metadata"]["name"].endswith("webhook-keypair"))
    for name, value in secret["data"].items():
        (webhook / name).write_bytes(base64.b64decode(value))
    return account, webhook


async def prepare_cluster(kube: KubeClient, release: list[Object]) -> None:
    namespaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in ("kong", "sample")
    ]
    await create_all(kube, [*namespaces, *kong_crds(), *release, *sample_applications("sample")])
    status = {"status": {"loadBalancer": {"ingress": [{"ip": "127.19.8.2"}]}}}
    await kube.patch(SERVICES, "edge-kong-proxy", status, "kong", subresource="status")
    pod = {
        "metadata": {"name": "edge-kong-0", "namespace": "kong"},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    }
    await kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", **pod})


async def check_listeners() -> None:
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1"}}
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://{POD_IP}:10254/readyz") as response:
            assert response.status == 200
        async with session.get(f"http://{POD_IP}:10255/metrics") as response:
            assert "rest_client_requests_total" in await response.text()
        async with session.post(f"https://{POD_IP}:8080/", json=review, ssl=False) as response:
            assert (await response.json())["response"] == {"uid": "u-1", "allowed": True}


async def test_without_a_proxy_the_controller_gives_up_and_says_why(tmp_path: Path) -> None:
    settings = Settings(directory=tmp_path / "api", rbac=False, persist=False)
    release = legacy_release("edge", "kong", 1)
    account, webhook = make_directories(tmp_path, release)
    async with ApiServer(settings) as server, await KubeClient.connect(server.kubeconfig) as kube:
        await prepare_cluster(kube, release)
        await mount_account(server, kube, account)
        environment = container_environment(
            release, server, {ACCOUNT: str(account), "/admission-webhook": str(webhook)}
        )
        environment |= {"CONTROLLER_KONG_ADMIN_INIT_RETRIES": "2", "CONTROLLER_KONG_ADMIN_INIT_RETRY_DELAY": "10ms"}
        async with controller(environment, tmp_path / "log") as process, asyncio.timeout(60):
            assert await process.wait() == 1
    assert "cannot go on" in (tmp_path / "log").read_text()
    assert "8444" in (tmp_path / "log").read_text()
