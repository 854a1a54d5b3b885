"""Prepares a Prefect server: work pool, deployments, and automations.

One automation ends runs whose process is gone, two start a rotation again that failed or was cut off.

Running it again changes nothing. ``python -m flows.bootstrap`` with PREFECT_API_URL set; KONVERGE_FLEET,
KONVERGE_NAMESPACE, KONVERGE_POOL, KONVERGE_DEPLOYMENT say for which fleet: ``konverge server bootstrap`` sets them.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
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
DEPLOYMENT = "fleet"
"""The name of the deployments in prefect.yaml; fleets that share a server have names of their own."""
FILE = "prefect.yaml"
ZOMBIES = "konverge: runs whose process is gone"
FAILED_ROTATIONS = "konverge: a rotation that failed is tried again"
CRASHED_ROTATIONS = "konverge: a rotation whose process is gone goes on"
AGAIN_AFTER = timedelta(minutes=10)
"""After a failure; what the rotation waits for is seldom there sooner."""
ON_AFTER = timedelta(minutes=1)
"""After a crash: two authorities in force are a state to leave."""
HEARTBEAT_SECONDS = 30
"""What PREFECT_FLOWS_HEARTBEAT_FREQUENCY is set to; a run is a zombie after three missed ones."""


@dataclass(frozen=True, slots=True)
class Setting:
    """For whom a server is prepared; an empty fleet or namespace leaves what prefect.yaml says."""

    fleet: str = ""
    namespace: str = ""
    pool: str = POOL
    deployment: str = DEPLOYMENT

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Setting:
        """Read it from the variables of an environment."""
        return cls(
            environment.get("KONVERGE_FLEET", ""),
            environment.get("KONVERGE_NAMESPACE", ""),
            environment.get("KONVERGE_POOL") or POOL,
            environment.get("KONVERGE_DEPLOYMENT") or DEPLOYMENT,
        )

    @property
    def shared(self) -> bool:
        """Whether other fleets have deployments on the same server."""
        return self.deployment != DEPLOYMENT

    def label(self, automation: str) -> str:
        """Return the name of an automation that is about this fleet alone where others share the server."""
        return f"{automation} ({self.deployment})" if self.shared else automation


async def ensure_pool(pool: str) -> None:
    """Create the process work pool where it is missing."""
    async with get_client() as client:
        try:
            await client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
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


async def ensure_rotation_automations(setting: Setting) -> None:
    """Create the automations that start a rotation again: of the fleet that failed, or of the deployment's own."""
    rotation = f"cert-rotation/{setting.deployment}"
    async with get_client() as client:
        deployment = (await client.read_deployment_by_name(rotation)).id
    about = f"konverge.fleet.{setting.namespace}.{setting.fleet}" if setting.shared else "konverge.fleet.*"
    failed = EventTrigger(
        expect={"konverge.rotation.failed"},
        match=ResourceSpecification({"prefect.resource.id": about}),
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )
    parameters = {"target": {name: _from_event(name) for name in ("fleet", "namespace")}, "kind": "auto"}
    again = RunDeployment(
        source="selected", deployment_id=deployment, parameters=parameters, schedule_after=AGAIN_AFTER
    )
    await ensure_automation(setting.label(FAILED_ROTATIONS), failed, again)
    role, name = ("deployment", setting.deployment) if setting.shared else ("flow", "cert-rotation")
    crashed = EventTrigger(
        expect={"prefect.flow-run.Crashed"},
        match_related=ResourceSpecification({"prefect.resource.role": role, "prefect.resource.name": name}),
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
    )
    on = RunDeployment(source="selected", deployment_id=deployment, schedule_after=ON_AFTER)
    await ensure_automation(setting.label(CRASHED_ROTATIONS), crashed, on)


def _from_event(name: str) -> dict[str, str]:
    """Return the template of a parameter that is taken from the event's payload."""
    return {"__prefect_kind": "jinja", "template": f"{{{{ event.payload.{name} }}}}"}


def find_file() -> Path:
    """Return where prefect.yaml is: beside the flows in a checkout, under the environment's prefix when installed."""
    places = (Path(__file__).resolve().parent.parent / FILE, Path(sys.prefix) / "share" / "konverge" / FILE)
    for place in places:
        if place.is_file():
            return place
    raise FinalError(
        f"{FILE} is in none of: {', '.join(map(str, places))}", reason="BootstrapFailed", hint="howto/prefect.md"
    )


def adapt(document: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Return the deployments for a fleet: their names, what they act on, and the pool that runs them."""
    own = {name: value for name in ("fleet", "namespace") if (value := getattr(setting, name))}
    deployments = []
    for found in document["deployments"]:
        parameters = {**found["parameters"], "target": {**found["parameters"]["target"], **own}}
        if "migration" in parameters and setting.fleet:
            parameters["migration"] = setting.fleet
        name = setting.deployment if setting.shared or found["name"] == DEPLOYMENT else found["name"]
        pool = {**found["work_pool"], "name": setting.pool}
        deployments.append({**found, "name": name, "parameters": parameters, "work_pool": pool})
    return {"name": document["name"], "pull": document.get("pull") or [], "deployments": deployments}


def deploy_all(setting: Setting) -> None:
    """Create or update the deployments of prefect.yaml."""
    file = find_file()
    with tempfile.TemporaryDirectory(prefix="konverge-deploy-") as directory:
        adapted = Path(directory) / FILE
        adapted.write_text(yaml.safe_dump(adapt(yaml.safe_load(file.read_text()), setting), sort_keys=False))
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(adapted)]
        done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise FinalError(
            f"prefect deploy ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-600:]}",
            reason="BootstrapFailed",
            hint="howto/prefect.md",
        )


async def bootstrap(setting: Setting) -> None:
    """Bring the server to what the flows need."""
    await ensure_pool(setting.pool)
    await ensure_zombie_automation()
    await asyncio.to_thread(deploy_all, setting)
    await ensure_rotation_automations(setting)


if __name__ == "__main__":
    asyncio.run(bootstrap(Setting.read(os.environ)))
    announce({"result": "bootstrapped"})
