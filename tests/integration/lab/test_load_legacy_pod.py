"""One legacy pod by hand, no kubelet: stand-in gateway, controller and echo applications under the sample load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from test_load_sidecar import (
    ACCOUNT,
    POD_IP,
    POD_LOOPBACK,
    container_environment,
    controller,
    make_directories,
    mount_account,
    prepare_cluster,
)

from konverge.kube.client import KubeClient
from konverge.kube.resources import ENDPOINT_SLICES, INGRESSES, Object
from konverge.lab.apiserver.serving import ApiServer
from konverge.lab.apiserver.state import Settings
from konverge.lab.legacy import legacy_release, sample_load
from konverge.lab.load import LoadProcess

pytestmark = pytest.mark.lab
NUMBER = os.getpid() % 120
APPLICATIONS = {"shop": f"127.19.65.{NUMBER + 2}", "orders": f"127.19.65.{NUMBER + 123}"}


@contextlib.asynccontextmanager
async def program(log: Path, environment: dict[str, str], module: str) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, env={**os.environ, **environment}, stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(20):
                    await process.wait()
        if process.returncode is None:
            process.kill()
        await process.wait()


def echo_environment(name: str) -> dict[str, str]:
    ip = APPLICATIONS[name]
    return {
        "KONVERGE_LAB_POD_IP": ip,
        "KONVERGE_LAB_POD_LOOPBACK": ip.replace("127.19.65.", "127.19.129."),
        "KONVERGE_LAB_POD_NAME": f"{name}-1",
        "KONVERGE_LAB_POD_NAMESPACE": "sample",
    }


def kong_environment(release: list[Object], prefix: Path) -> dict[str, str]:
    deployment = next(body for body in release if body["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][1]
    assert container["name"] == "proxy"
    return {
        **{entry["name"]: entry["value"] for entry in container["env"] if "value" in entry},
        "KONVERGE_LAB_POD_IP": POD_IP,
        "KONVERGE_LAB_POD_LOOPBACK": POD_LOOPBACK,
        "KONVERGE_LAB_MOUNTS": orjson.dumps({"/kong_prefix": str(prefix)}).decode(),
    }


async def publish_endpoints(kube: KubeClient) -> None:
    for name, address in APPLICATIONS.items():
        await kube.create(
            ENDPOINT_SLICES,
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "addressType": "IPv4",
                "metadata": {
                    "name": f"{name}-1",
                    "namespace": "sample",
                    "labels": {"kubernetes.io/service-name": name},
                },
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
                "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            },
        )


async def until_ready() -> None:
    """Wait until controller and gateway say that they are ready; nothing tells when they are."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(40):
        for url in (f"http://{POD_IP}:10254/readyz", f"http://{POD_IP}:8100/status/ready"):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(url) as response:
                        if response.status == 200:
                            break
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def legacy_pod(directory: Path) -> AsyncIterator[KubeClient]:
    settings = Settings(directory=directory / "api", persist=False, allow_loopback_endpoints=True)
    release = legacy_release("edge", "kong", 1)
    account, webhook = make_directories(directory, release)
    prefix = directory / "prefix"
    prefix.mkdir()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(ApiServer(settings))
        kube = await stack.enter_async_context(await KubeClient.connect(server.kubeconfig))
        await prepare_cluster(kube, release)
        await publish_endpoints(kube)
        await mount_account(server, kube, account)
        for name in APPLICATIONS:
            log = directory / f"{name}.log"
            await stack.enter_async_context(program(log, echo_environment(name), "konverge.lab.echo"))
        gateway = program(directory / "kong.log", kong_environment(release, prefix), "konverge.lab.kong")
        await stack.enter_async_context(gateway)
        mounts = {ACCOUNT: str(account), "/admission-webhook": str(webhook)}
        environment = container_environment(release, server, mounts)
        await stack.enter_async_context(controller(environment, directory / "controller.log"))
        await until_ready()
        yield kube


async def wait_for(load: LoadProcess, reached: Any) -> None:
    async with asyncio.timeout(30):
        while not reached((await load.snapshot()).requests):  # noqa: ASYNC110 - the counts are another process's
            await asyncio.sleep(0.1)


def show(directory: Path) -> str:
    return "\n".join(f"{file.name}: {file.read_text()[-1500:]}" for file in sorted(directory.glob("*.log")))


async def test_every_route_of_the_sample_answers_while_the_configuration_changes(tmp_path: Path) -> None:
    print(f"pod {POD_IP}, loopback {POD_LOOPBACK}, applications {APPLICATIONS}")
    async with legacy_pod(tmp_path) as kube:
        plan = sample_load(f"http://{POD_IP}:8000", rate=100, sessions=2, connections=4)
        async with LoadProcess(plan) as load:
            await wait_for(load, lambda counts: counts.total >= 100)
            await load.mark("during")
            for number in range(3):
                patch = {"metadata": {"annotations": {"konghq.com/tags": f"change-{number}"}}}
                await kube.patch(INGRESSES, "shop", patch, "sample")
                already = (await load.snapshot()).requests.total
                await wait_for(load, lambda counts, already=already: counts.total >= already + 30)
            report = await load.stop()
    assert report.clean, f"{report.requests.by_kind}\n{report.failures[:5]}\n{show(tmp_path)}"
    assert set(report.requests.by_target) == {target.name for item in plan.classes for target in item.targets}
    assert report.messages.lost == 0
    assert report.requests.retried_on_stale_connection == 0
