"""cert-rotation as a flow: what it leaves behind, windows, one at a time; and automations that start it again."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun

import flows.cert_rotation
import tasks.rotating
from flows.cert_rotation import cert_rotation
from konverge.decide.windows import DAYS
from konverge.errors import CheckRefused
from konverge.kube.resources import EVENTS, LEASES
from konverge.model.fleet import FleetSpec, Identity, Window
from konverge.model.proxy import Proxy
from konverge.model.target import Target
from konverge.operate import claiming, reserving, rotating
from konverge.operate.fleets import apply_fleet
from konverge.operate.identities import load_keys
from konverge.operate.orchestrator import PrefectServer, client_environment
from tests.unit.operate.fake_kube import FakeKube

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
TARGET = Target(fleet="shop")
ROOT = Path(__file__).parents[3]


class World:
    """A fleet without proxies: everything that is stored happens, nobody has to be reached."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kube = FakeKube()

        @asynccontextmanager
        async def connect(_: Target) -> AsyncIterator[FakeKube]:
            yield self.kube

        async def discover(*_: Any) -> list[Proxy]:
            return []

        monkeypatch.setattr(tasks.rotating, "connect", connect)
        for module in (tasks.rotating, rotating):
            monkeypatch.setattr(module, "discover_proxies", discover)

    async def open(self, **spec: Any) -> World:
        self.fleet = await apply_fleet(self.kube, "shop", "default", FleetSpec(proxy_service="s", **spec))
        return self

    async def authority(self) -> str:
        keys = await load_keys(self.kube, self.fleet)
        assert keys.authorities.successor is None
        return keys.authorities.current.certificate.fingerprint


@pytest.fixture
def world(harness: None, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def run(kind: str, **parameters: Any) -> tuple[str, dict[str, Any]]:
    """Run the flow and return the name of its final state and its report."""
    state = await cert_rotation(TARGET, kind, return_state=True, **parameters)  # type: ignore[call-overload]
    return str(state.name), await state.result()


async def test_a_rotation_leaves_timeline_and_events_and_the_same_again_is_another_one(world: World) -> None:
    await world.open()
    name, report = await run("auto")
    assert (name, report["state"], report["steps"]) == ("Completed", "nothing-due", [])
    first = await world.authority()
    name, report = await run("authority")
    assert (name, report["state"]) == ("Completed", "done")
    assert [step["step"] for step in report["steps"]] == ["prepare", "trust-both", "reissue", "switch", "retire"]
    assert all("seconds" in step for step in report["steps"])
    second = await world.authority()
    assert first != second
    assert [event["reason"] for event in world.kube.all(EVENTS)] == ["CertificatesRotated"]
    async with get_client() as client:
        artifacts = [(str(artifact.key), str(artifact.data)) for artifact in await client.read_artifacts()]
    # Every run leaves one of its own under the same key; the server does not return them in the order of time.
    assert any("retire" in data for key, data in artifacts if key == "shop-rotation")
    assert "PRIVATE" not in "".join(data for _, data in artifacts)
    _, report = await run("emergency", revoke=second)
    assert [step["step"] for step in report["steps"]] == ["prepare", "replace", "switch", "retire"]
    assert second != await world.authority()


async def test_a_scheduled_run_outside_the_windows_is_postponed_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = DAYS[(datetime.now(UTC) + timedelta(days=3)).weekday()]
    await world.open(identity=Identity(windows=(Window(days=(day,), minutes=60),)))  # type: ignore[arg-type]
    monkeypatch.setattr(flows.cert_rotation, "is_scheduled", lambda: True)
    name, report = await run("auto")
    assert (name, report["state"]) == ("Postponed", "postponed")
    assert report["message"].startswith("postponed until 20")
    assert world.kube.all(EVENTS) == []
    monkeypatch.setattr(flows.cert_rotation, "is_scheduled", lambda: False)
    assert (await run("auto"))[0] == "Completed", "a person does not wait for a window"


async def test_two_rotations_of_one_fleet_do_not_run_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.open()
    monkeypatch.setattr(reserving, "RESERVE_SECONDS", 0.5)
    sleeper = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    try:
        holder = claiming.name_process(sleeper.pid)
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}
        world.kube.put(LEASES, {"metadata": {"name": "shop-rotation"}, "spec": spec})
        with pytest.raises(CheckRefused) as caught:
            await cert_rotation(TARGET, "leaf")
        assert caught.value.reason == "RotationRunning"
        assert holder in caught.value.message
    finally:
        sleeper.kill()
        await sleeper.wait()
    assert (await run("leaf"))[1]["state"] == "done", "the holder is gone, and nobody waits for its lease"


EMIT = """
import sys
from konverge.model.target import Target
from tasks.timelines import emit_rotation
from prefect.events.worker import EventsWorker
emit_rotation(Target(fleet="other", namespace="far"), "failed", kind="leaf", message="a test")
EventsWorker.drain_all()
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_failed_rotation_is_scheduled_again_for_the_fleet_that_failed(
    server: PrefectServer, tmp_path: Path
) -> None:
    environment = client_environment(server, tmp_path)
    for _ in range(2):
        assert await execute(environment, "-m", "flows.bootstrap") == 0
    assert await execute(environment, "-c", EMIT) == 0
    async with PrefectClient(api=environment["PREFECT_API_URL"]) as client:
        # Those of fleets with deployments of their own, which other tests have made, end in a name in brackets.
        automations = [a.name for a in await client.read_automations() if not a.name.endswith(")")]
        assert sorted(automations) == [
            "konverge: a rotation that failed is tried again",
            "konverge: a rotation whose process is gone goes on",
            "konverge: runs whose process is gone",
        ]
        found = await until_scheduled(client)
    assert found.parameters == {"target": {"fleet": "other", "namespace": "far"}, "kind": "auto"} | {
        key: value for key, value in found.parameters.items() if key == "jitter_seconds"
    }
    assert found.expected_start_time is not None
    assert found.expected_start_time > datetime.now(UTC) + timedelta(minutes=5)


async def execute(environment: dict[str, str], *words: str) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, env={**os.environ, **environment}, cwd=ROOT
    )
    return await asyncio.wait_for(process.wait(), 180)


async def until_scheduled(client: PrefectClient) -> FlowRun:
    """Wait for the run that the automation creates; the server tells nobody."""
    async with asyncio.timeout(120):
        while True:
            runs = [
                run
                for run in await client.read_flow_runs()
                if run.parameters.get("target", {}).get("fleet") == "other"
            ]
            if runs:
                return runs[0]
            await asyncio.sleep(0.2)
