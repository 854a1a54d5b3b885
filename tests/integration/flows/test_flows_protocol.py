"""``python -m flows.run``: JSON lines on standard output and nothing else, exit codes, no secret in any record."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.run import FLOWS
from konverge.cli.demo.staging import install_crds
from konverge.kube.client import KubeClient
from konverge.model.fleet import FleetSpec
from konverge.operate.fleets import apply_fleet
from konverge.operate.identities import ensure_identity
from konverge.operate.orchestrator import PrefectServer, client_environment
from tests.serving import serve_api

pytestmark = [pytest.mark.prefect, pytest.mark.lab, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A stand-in API server with the CRDs, a fleet without proxies and a paused one."""
    with serve_api(tmp_path_factory.mktemp("api")) as api:
        asyncio.run(_furnish(str(api.kubeconfig)))
        yield str(api.kubeconfig)


async def _furnish(kubeconfig: str) -> None:
    async with await KubeClient.connect(kubeconfig) as kube:
        await install_crds(kube)
        await ensure_identity(kube, await apply_fleet(kube, "empty", "default", FleetSpec(proxy_service="s")))
        await apply_fleet(kube, "resting", "default", FleetSpec(proxy_service="s", paused=True))


async def run(server: PrefectServer, tmp_path: Path, name: str, **parameters: Any) -> tuple[int, list[Any], str]:
    """Run a flow in a process and return exit code, lines and log."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "flows.run", name),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=client_environment(server, tmp_path),
    )
    out, err = await asyncio.wait_for(process.communicate(json.dumps(parameters).encode()), 60)
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


def target(fleet: str, kubeconfig: str) -> dict[str, Any]:
    return {"target": {"fleet": fleet, "kubeconfig": kubeconfig}}


async def test_a_run_that_completes(server: PrefectServer, kubeconfig: str, tmp_path: Path) -> None:
    code, lines, log = await run(server, tmp_path, "config-sync", **target("empty", kubeconfig), author="a test")
    assert code == 0, log
    first, *between, last = lines
    assert first["url"] == server.flow_run(first["flow_run"])
    assert all(set(line) == {"progress"} for line in between)
    counts = {"total": 0, "synced": 0, "drifted": 0, "quarantined": 0, "ready": 0}
    assert last == {"result": {"revision": 1, "verdict": "Completed", **counts}}


async def test_a_run_that_fails(server: PrefectServer, kubeconfig: str, tmp_path: Path) -> None:
    code, lines, _ = await run(server, tmp_path, "config-sync", **target("nobody", kubeconfig))
    assert code == 1
    assert set(lines[0]) == {"flow_run", "url"}
    assert lines[-1]["type"] == "NotFound"
    assert lines[-1]["error"]["reason"] == "FleetNotFound"
    assert lines[-1]["error"]["hint"] == "docs/reference/errors.md#fleet-not-found"


@pytest.mark.parametrize("name", ["config-sync", "cert-rotation"])
async def test_a_run_that_is_refused(name: str, server: PrefectServer, kubeconfig: str, tmp_path: Path) -> None:
    code, lines, _ = await run(server, tmp_path, name, **target("resting", kubeconfig))
    assert code == 3
    assert (lines[-1]["type"], lines[-1]["error"]["reason"]) == ("CheckRefused", "Paused")


async def test_parameters_of_the_wrong_shape_end_in_the_log(server: PrefectServer, tmp_path: Path) -> None:
    code, lines, log = await run(server, tmp_path, "config-sync", target={"fleet": ""})
    assert code == 1
    assert not any("result" in line for line in lines)
    assert "fleet" in log


async def test_every_flow_that_can_be_named_is_there() -> None:
    import importlib

    for module, attribute in FLOWS.values():
        assert callable(getattr(importlib.import_module(module), attribute))
