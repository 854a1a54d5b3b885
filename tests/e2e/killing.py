"""A flow's process that can be killed as a machine that loses power would, and what is seen of it from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress

import orjson
import pytest

from konverge.cli.demo.staging import NAMESPACE, RELEASE
from konverge.cli.running import flow_log
from konverge.errors import KonvergeError
from konverge.kube.resources import FLEET_MIGRATIONS
from konverge.model.migration import MigrationSpec, Step, StepState
from konverge.operate.migrations import apply_migration, load_migration
from konverge.operate.orchestrator import client_environment
from tests.e2e.scenario import FLEET, Scenario

LATER = list(StepState)
"""States in the order in which a step runs through them."""


class FlowProcess:
    """The process of a flow."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, scenario: Scenario, flow: str, **parameters: object) -> FlowProcess:
        flow_log().parent.mkdir(parents=True, exist_ok=True)
        with flow_log().open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "flows.run", flow),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=client_environment(scenario.prefect),
                start_new_session=True,
            )
        assert process.stdin is not None
        given = parameters or {"migration": RELEASE}
        process.stdin.write(orjson.dumps({"target": scenario.target.to_json(), **given}))
        process.stdin.close()
        return cls(process)

    async def kill(self) -> int:
        """SIGKILL to everything it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return await self.process.wait()

    async def begun(self) -> None:
        """Wait until the flow run has begun: the first line says so."""
        assert self.process.stdout is not None
        await asyncio.wait_for(self.process.stdout.readline(), 60)


async def begin(scenario: Scenario) -> None:
    """Create a new FleetMigration; one that has ended is deleted first."""
    await scenario.kube.delete(FLEET_MIGRATIONS, RELEASE, NAMESPACE)
    spec = MigrationSpec(fleet=FLEET, release=RELEASE, soak_seconds=0.3, drain_seconds=30.0)
    await apply_migration(scenario.kube, RELEASE, NAMESPACE, spec)


async def until_reached(scenario: Scenario, flow: FlowProcess, step: Step, state: StepState) -> None:
    """Wait until the journal shows a step in a state or beyond it; there is no event for it across processes."""
    async with asyncio.timeout(60):
        while flow.process.returncode is None:
            with suppress(KonvergeError):
                found = (await load_migration(scenario.kube, RELEASE, NAMESPACE)).status.record(step).state
                if LATER.index(found) >= LATER.index(state):
                    return
            await asyncio.sleep(0.02)
    pytest.fail(f"the flow ended before {step.value} was {state.value}")
