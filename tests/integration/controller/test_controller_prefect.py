"""The delegate on a real Prefect server: one run per revision, followed to its end; refusals say what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from konverge.controller.delegating import ONBOARDING, SYNC, Delegate
from konverge.errors import Invalid, NotFound, Unavailable
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.revision import Revision
from konverge.operate.orchestrator import start_server, stop_server

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(300)]

FLEET = Fleet(name="shop", namespace="edge", uid="u-1", spec=FleetSpec(proxy_service="s", runner="prefect"))
REVISION = Revision(7, b"{}")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture
async def api(home: Path) -> AsyncIterator[httpx.AsyncClient]:
    server = await start_server(home)
    async with httpx.AsyncClient(base_url=server.url, timeout=30, trust_env=False) as client:
        try:
            yield client
        finally:
            await stop_server(home)


async def deploy(api: httpx.AsyncClient, flow: str) -> None:
    """What `prefect deploy` leaves behind, without a worker that would take the runs."""
    flow_id = (await send(api, "POST", "/flows/", {"name": flow})).json()["id"]
    body = {"name": "fleet", "flow_id": flow_id, "enforce_parameter_schema": False}
    await send(api, "POST", "/deployments/", body)


async def read(api: httpx.AsyncClient, run_id: str) -> Any:
    return (await send(api, "GET", f"/flow_runs/{run_id}")).json()


async def send(api: httpx.AsyncClient, method: str, path: str, body: Any = None) -> httpx.Response:
    """Ask until it is not 503: the server's SQLite is locked now and then."""
    async with asyncio.timeout(60):
        while (answer := await api.request(method, path, json=body)).status_code == 503:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return answer.raise_for_status()


class Patient(Delegate):
    """A delegate that asks again, as the controller's loop does."""

    async def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while True:
                try:
                    return await super()._ask(method, path, body)
                except Unavailable:
                    await asyncio.sleep(0.2)


async def test_runs_are_asked_for_once_and_followed_to_their_end(api: httpx.AsyncClient) -> None:
    delegate = Patient({"PREFECT_API_URL": str(api.base_url)})
    with pytest.raises(NotFound, match="deployments/name/config-sync/fleet"):
        await delegate.sync(FLEET, REVISION)
    for flow in (SYNC, ONBOARDING):
        await deploy(api, flow)
    run = await delegate.sync(FLEET, REVISION)
    assert not run.ended
    assert (await delegate.sync(FLEET, REVISION)).id == run.id, "the same revision is the same run"
    assert (await delegate.sync(FLEET, REVISION, 1)).id != run.id
    assert (await delegate.sync(FLEET, Revision(8, b"{}"))).id != run.id
    seen = await read(api, run.id)
    assert seen["parameters"] == {
        "target": {"fleet": "shop", "namespace": "edge"},
        "revision": 7,
        "author": "controller",
    }
    assert "konverge/edge/shop" in seen["tags"]
    batch = await delegate.onboard(FLEET, REVISION, ["b", "a"])
    assert (await read(api, batch.id))["parameters"]["pods"] == ["a", "b"]
    assert (await delegate.onboard(FLEET, REVISION, ["a", "b"])).id == batch.id
    assert not (await delegate.look(run)).ended
    state = {"state": {"type": "COMPLETED", "name": "Completed"}, "force": True}
    await send(api, "POST", f"/flow_runs/{run.id}/set_state", state)
    ended = await delegate.look(run)
    assert ended.ended
    assert ended.state == "COMPLETED"
    await send(api, "DELETE", f"/flow_runs/{batch.id}")
    assert (await delegate.look(batch)).ended, "a run that somebody deleted does not hold the fleet up"


async def test_a_run_whose_process_is_gone_is_ended_and_its_signs_of_life_are_found(api: httpx.AsyncClient) -> None:
    delegate = Patient({"PREFECT_API_URL": str(api.base_url), "KONVERGE_DEPLOYMENT": "fleet"})
    await deploy(api, SYNC)
    run = await delegate.sync(FLEET, Revision(20, b"{}"))
    for name in ("Pending", "Running"):
        state = {"state": {"type": name.upper(), "name": name}}
        await send(api, "POST", f"/flow_runs/{run.id}/set_state", state)
    assert (await delegate.look(run)).name == "Running"
    async with asyncio.timeout(60):
        while not (seen := await delegate.find_event(run)):  # noqa: ASYNC110 - the server stores events later
            await asyncio.sleep(0.2)
    beat = {
        "event": "prefect.flow-run.heartbeat",
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run.id}"},
        "payload": {},
        "id": str(uuid4()),
    }
    await send(api, "POST", "/events", [beat])
    async with asyncio.timeout(60):
        while await delegate.find_event(run) == seen:  # noqa: ASYNC110 - the server stores events later
            await asyncio.sleep(0.2)
    await delegate.end(run, "its process is gone")
    ended = await delegate.look(run)
    assert (ended.ended, ended.state) == (True, "CRASHED")
    assert (await read(api, run.id))["state"]["message"] == "its process is gone"
    assert (await delegate.sync(FLEET, Revision(20, b"{}"))).ended, "the same attempt is the same run, also then"
    unstored = await delegate.sync(FLEET, Revision(0, b"{}"))
    assert "revision" not in (await read(api, unstored.id))["parameters"], "the run renders the sources"


async def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(Unavailable, match="does not answer") as caught:
        await Delegate({"PREFECT_API_URL": "http://127.0.0.1:9/api"}).sync(FLEET, REVISION)
    assert caught.value.reason == "PrefectUnreachable"
    with pytest.raises(Invalid, match="PREFECT_API_URL"):
        await Delegate({}).sync(FLEET, REVISION)
