"""`konverge status` on an API server: once in every format, and as it changes, without polling."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import pytest
import yaml
from typer.testing import CliRunner

from konverge.cli.demo.staging import install_crds
from konverge.cli.main import app
from konverge.cli.status import follow_fleets
from konverge.kube.client import KubeClient
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import Phase, Proxy, ProxyStatus
from konverge.operate.fleets import apply_fleet, write_instance
from tests.serving import serve_api

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_api(tmp_path_factory.mktemp("api")) as server:
        yield str(server.kubeconfig)


@pytest.fixture
async def kube(kubeconfig: str) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(kubeconfig) as client:
        await install_crds(client)
        yield client


async def make(kube: KubeClient, name: str) -> Fleet:
    return await apply_fleet(kube, name, "default", FleetSpec(proxy_service="s"))


async def put(kube: KubeClient, fleet: Fleet, name: str, revision: int, *, ok: bool = True) -> None:
    status = ProxyStatus(
        phase=Phase.SERVING if ok else Phase.QUARANTINED,
        desired_revision=revision,
        loaded_revision=revision if ok else None,
        synced=ok,
        traffic_ready=ok,
        reason="Configured" if ok else "ProxyUnreachable",
        message="fine" if ok else "connection refused",
    )
    await write_instance(kube, fleet, Proxy(name=name, namespace="default", ip="10.0.0.1"), status)


async def test_once_in_every_format(kube: KubeClient, kubeconfig: str) -> None:
    fleet = await make(kube, "once")
    await put(kube, fleet, "once-1", 4)

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["status", "once", "--kubeconfig", kubeconfig, *words])
        return result.exit_code, result.stdout

    code, text = await asyncio.to_thread(run)
    assert code == 0
    assert "once-1" in text
    for output, read in (("json", orjson.loads), ("yaml", yaml.safe_load)):
        code, text = await asyncio.to_thread(run, "-o", output)
        assert (code, read(text)["fleets"][0]["proxies"]["once-1"]["loadedRevision"]) == (0, 4)
    await put(kube, fleet, "once-2", 4, ok=False)
    code, text = await asyncio.to_thread(run, "-o", "wide")
    assert code == 2
    assert "ProxyUnreachable: connection refused" in " ".join(text.split())


async def test_changes_come_by_a_watch_and_rest_costs_nothing(kube: KubeClient, kubeconfig: str) -> None:
    fleet = await make(kube, "followed")
    await put(kube, fleet, "followed-1", 1)
    async with await KubeClient.connect(kubeconfig) as own, follow_fleets(own, "followed", "default") as changes:
        ((seen, proxies),) = await asyncio.wait_for(anext(changes), 60)
        assert (seen.name, proxies["followed-1"].loaded_revision) == ("followed", 1)
        requests = own.requests
        waiting = asyncio.ensure_future(anext(changes))
        await put(kube, fleet, "followed-1", 2)
        ((_, proxies),) = await asyncio.wait_for(waiting, 60)
        assert proxies["followed-1"].loaded_revision == 2
        assert own.requests - requests <= 2, "at most the two watches that were about to start"
        await changes.aclose()  # type: ignore[attr-defined]


async def test_without_a_terminal_every_change_is_a_line(kube: KubeClient, kubeconfig: str, tmp_path: Path) -> None:
    fleet = await make(kube, "lines")
    await put(kube, fleet, "lines-1", 1)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", "from konverge.cli.main import run; run()", "status", "lines", "-w", "-o", "json"),
        *("--kubeconfig", kubeconfig),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        limit=1 << 20,
    )
    assert process.stdout is not None
    try:
        seen = []
        for revision in (1, 2):
            await put(kube, fleet, "lines-1", revision)
            while revision not in seen:
                line = await asyncio.wait_for(process.stdout.readline(), 60)
                seen.append(orjson.loads(line)["fleets"][0]["proxies"]["lines-1"]["loadedRevision"])
        process.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(process.communicate(), 30)
        assert (process.returncode, stderr.decode().strip()) == (130, "interrupted")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_watching_a_fleet_that_is_not_there_says_so(kubeconfig: str) -> None:
    result = CliRunner().invoke(app, ["status", "nowhere", "-w", "--kubeconfig", kubeconfig])
    assert result.exit_code == 1
    assert "No ProxyFleet default/nowhere" in " ".join(result.stderr.split())
