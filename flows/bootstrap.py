"""Prepares a Prefect server: work pool, deployments, and the automation that ends runs whose process is gone.

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
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists

from flows.run import announce
from konverge.errors import FinalError

POOL = "konverge"
ZOMBIES = "konverge: runs whose process is gone"
HEARTBEAT_SECONDS = 30
"""What PREFECT_FLOWS_HEARTBEAT_FREQUENCY is set to; a run is a zombie after three missed ones."""


async def ensure_pool() -> None:
    """Create the process work pool where it is missing."""
    async with get_client() as client:
        try:
            await client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        except ObjectAlreadyExists:
            return


async def ensure_zombie_automation() -> None:
    """Create the automation that marks a run as crashed when its heartbeats stop."""
    async with get_client() as client:
        if await client.read_automations_by_name(ZOMBIES):
            return
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.*"},
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=3 * HEARTBEAT_SECONDS),
    )
    action = ChangeFlowRunState(state=StateType.CRASHED, message="No heartbeat: the process of this run is gone")
    await Automation(name=ZOMBIES, trigger=trigger, actions=[action]).acreate()


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


if __name__ == "__main__":
    asyncio.run(bootstrap(Path(__file__).resolve().parent.parent))
    announce({"result": "bootstrapped"})
