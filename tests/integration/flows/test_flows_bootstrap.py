"""Fleets that share a Prefect server: each has deployments, schedules and automations of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound

from konverge.operate.orchestrator import PrefectServer, client_environment
from tests.integration.flows.test_flows_rotation import execute

FLOWS = {
    "config-sync", "proxy-onboarding", "drift-audit", "cert-rotation", "legacy-migration", "migration-rollback"
}  # fmt: skip

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(400)]


async def test_each_fleet_gets_its_own_and_twice_is_once(server: PrefectServer, tmp_path: Path) -> None:
    environment = client_environment(server, tmp_path)
    for fleet in ("shop", "bank", "shop"):
        own = {"KONVERGE_FLEET": fleet, "KONVERGE_NAMESPACE": "far", "KONVERGE_DEPLOYMENT": f"far-{fleet}"}
        assert await execute({**environment, **own, "KONVERGE_POOL": "east"}, "-m", "flows.bootstrap") == 0
    async with PrefectClient(api=environment["PREFECT_API_URL"]) as client:
        for fleet in ("shop", "bank"):
            for flow in FLOWS:
                found = await client.read_deployment_by_name(f"{flow}/far-{fleet}")
                assert found.parameters["target"] == {"fleet": fleet, "namespace": "far"}
                assert found.work_pool_name == "east"
            rotation = await client.read_deployment_by_name(f"cert-rotation/far-{fleet}")
            assert [schedule.active for schedule in rotation.schedules] == [True]
        automations = await client.read_automations()
    names = [automation.name for automation in automations]
    assert len(set(names)) == len(names)
    failed = {a.name: a for a in automations if a.name.startswith("konverge: a rotation that failed")}
    assert set(failed) == {
        f"konverge: a rotation that failed is tried again (far-{fleet})" for fleet in ("shop", "bank")
    }
    watched = failed["konverge: a rotation that failed is tried again (far-shop)"].trigger.model_dump()["match"]
    assert "konverge.fleet.far.shop" in str(watched)


async def test_what_a_server_lost_is_made_again(server: PrefectServer, tmp_path: Path) -> None:
    environment = client_environment(server, tmp_path)
    command = ("server", "bootstrap", "--deployment", "kept", "--keep", "0.2")
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("konverge"), *command, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert b"bootstrapped" in await asyncio.wait_for(process.stdout.readline(), 180)
        async with PrefectClient(api=environment["PREFECT_API_URL"]) as client:
            first = await client.read_deployment_by_name("cert-rotation/kept")
            await client.delete_deployment(first.id)
            async with asyncio.timeout(180):
                while True:
                    with contextlib.suppress(ObjectNotFound):
                        second = await client.read_deployment_by_name("cert-rotation/kept")
                        break
                    await asyncio.sleep(0.1)
        assert second.id != first.id
        assert [schedule.active for schedule in second.schedules] == [True]
        assert process.returncode is None
    finally:
        process.terminate()
        await process.wait()
