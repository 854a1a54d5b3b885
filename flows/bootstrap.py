"""Prepares a Prefect server: work pool, deployments, and automations.

One automation ends runs whose process is gone, two start a rotation again that failed or was cut off.

Running it again changes nothing. ``python -m flows.bootstrap`` with PREFECT_API_URL set.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists

from konverge.errors import FinalError
from tasks.announcing import announce

POOL = "konverge"
ZOMBIES = "konverge: runs whose process is gone"
ROTATION = "cert-rotation/fleet"
FAILED_ROTATIONS = "konverge: a rotation that failed is tried again"
CRASHED_ROTATIONS = "konverge: a rotation whose process is gone goes on"
AGAIN_AFTER = timedelta(minutes=10)
"""After a failure; what the rotation waits for is seldom there sooner."""
ON_AFTER = timedelta(minutes=1)
"""After a crash: two authorities in force are a state to leave."""
HEARTBEAT_SECONDS = 30
"""What PREFECT_FLOWS_HEARTBEAT_FREQUENCY is set to; a run is a zombie after three missed ones."""


async def ensure_pool() -> None:
    """Create the process work pool where it is missing."""
    async with get_client() as client:
        try:
            await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        except ObjectAlreadyExists:
            return


async def ensure_automation(name: str, trigger: EventTrigger, action: ActionTypes) -> None:
    """Create an automation where none of that name exists."""
    async with get_client() as client:
        if await client.read_automations_by_name(name):
            return
    await Automation(name=name, trigger=trigger, actions=[action]).acreate()


async def ensure_zombie_automation() -> None:
    """Create the automation that marks a run as crashed when its heartbeats stop."""
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.*"},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=3 * HEARTBEAT_SECONDS),
    )
    action = ChangeFlowRunState(state=StateType.CRASHED, message="No heartbeat: the process of this run is gone")
    await ensure_automation(ZOMBIES, trigger, action)


async def ensure_rotation_automations() -> None:
    """Create the automations that start a rotation again: of the fleet that failed, or of the deployment's own."""
    async with get_client() as client:
        deployment = (await client.read_deployment_by_name(ROTATION)).id
    failed = EventTrigger(
        expect={"konverge.rotation.failed"},
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )
    parameters = {"target": {name: _from_event(name) for name in ("fleet", "namespace")}, "kind": "auto"}
    again = RunDeployment(
        source="selected", deployment_id=deployment, parameters=parameters, schedule_after=AGAIN_AFTER
    )
    await ensure_automation(FAILED_ROTATIONS, failed, again)
    crashed = EventTrigger(
        expect={"prefect.flow-run.Crashed"},
        match_related=ResourceSpecification(
            {"prefect.resource.role": "flow", "prefect.resource.name": "cert-rotation"}
        ),
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )
    on = RunDeployment(source="selected", deployment_id=deployment, schedule_after=ON_AFTER)
    await ensure_automation(CRASHED_ROTATIONS, crashed, on)


def _from_event(name: str) -> dict[str, str]:
    """Return the template of a parameter that is taken from the event's payload."""
    return {"__prefect_kind": "jinja", "template": f"{{{{ event.payload.{name} }}}}"}


def deploy_all(root: Path) -> None:
    """Create or update the deployments of prefect.yaml."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise FinalError(
            f"prefect deploy ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}",
            reason="BootstrapFailed",
            hint="howto/prefect.md",
        )


async def bootstrap(root: Path) -> None:
    """Bring the server to what the flows need."""
    await ensure_pool()
    await ensure_zombie_automation()
    await asyncio.to_thread(deploy_all, root)
    await ensure_rotation_automations()


if __name__ == "__main__":
    asyncio.run(bootstrap(Path(__file__).resolve().parent.parent))
    announce({"result": "bootstrapped"})
