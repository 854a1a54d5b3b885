"""Has Prefect do what the controller finds to do: a run of the fleet's deployments, one at a time, then its end.

Talks to Prefect's REST API; Prefect itself is not imported. What a run came to is read from the fleet afterwards:
Kubernetes holds the state, a run only tells that something ended.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from konverge.errors import Invalid, NotFound, Unavailable
from konverge.model.fleet import Fleet
from konverge.model.revision import Revision
from konverge.operate.orchestrator import read_authorization

log = logging.getLogger(__name__)

SYNC, ONBOARDING = "config-sync", "proxy-onboarding"
DEPLOYMENT = "fleet"
"""The name under which ``prefect.yaml`` deploys both flows; KONVERGE_DEPLOYMENT where fleets share a server."""
TIMEOUT = 15.0
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
HINT = "reference/errors.md#prefect-unreachable"


@dataclass(frozen=True, slots=True)
class Run:
    """One flow run that the controller asked for."""

    id: str
    flow: str
    key: str
    state: str = ""
    name: str = ""
    """Of the state, as the UI shows it: ``Late`` and ``AwaitingConcurrencySlot`` are both of type SCHEDULED."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ENDED


@dataclass(slots=True)
class Delegate:
    """Creates runs and looks after them; ``environment`` names the API as Prefect's own clients read it."""

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    deployment: str = ""

    def __post_init__(self) -> None:
        self.deployment = self.deployment or self.environment.get("KONVERGE_DEPLOYMENT") or DEPLOYMENT

    @property
    def url(self) -> str:
        """The API's URL; Invalid where PREFECT_API_URL is not set."""
        url = self.environment.get("PREFECT_API_URL", "").rstrip("/")
        if not url:
            raise Invalid(
                "The fleet's spec.runner is prefect, but the controller's PREFECT_API_URL is not set",
                reason="PrefectUnknown",
                hint=HINT,
            )
        return url

    async def sync(self, fleet: Fleet, revision: Revision, attempt: int = 0) -> Run:
        """Have a stored revision brought to the fleet; the same again, in the same attempt, is the same run.

        One that is not stored stands for the sources: the run renders them, and falls back where that is refused.
        """
        stored = {"revision": revision.number} if revision.number else {}
        key = f"{fleet.uid or fleet.name}/{SYNC}/{revision.number or revision.hash}"
        key += f"/{attempt}" if attempt else ""
        return await self._create(fleet, SYNC, key, {**stored, "author": "controller"})

    async def onboard(self, fleet: Fleet, revision: Revision, pods: Sequence[str], attempt: int = 0) -> Run:
        """Have pods onboarded as one batch; the same pods again, in the same attempt, are the same run."""
        digest = hashlib.sha256("\n".join(sorted(pods)).encode()).hexdigest()[:16]
        key = f"{fleet.uid or fleet.name}/{ONBOARDING}/{revision.number}/{digest}/{attempt}"
        return await self._create(fleet, ONBOARDING, key, {"pods": sorted(pods)})

    async def look(self, run: Run) -> Run:
        """Return the run as it is now; one that Prefect does not know any more has ended."""
        try:
            found = await self._ask("GET", f"/flow_runs/{run.id}")
        except NotFound:
            return Run(run.id, run.flow, run.key, "CANCELLED")
        return Run(run.id, run.flow, run.key, *_state(found))

    async def find_event(self, run: Run) -> str:
        """Return the id of the newest event about a run, its heartbeats included; "" where there is none."""
        about = {"any_resource": {"id": [f"prefect.flow-run.{run.id}"]}, "order": "DESC"}
        found = await self._ask("POST", "/events/filter", {"filter": about, "limit": 1})
        return next((str(event["id"]) for event in found.get("events") or ()), "")

    async def end(self, run: Run, message: str) -> None:
        """Call a run crashed whose process is gone; then it holds no slot of its deployment any more."""
        state = {"type": "CRASHED", "name": "Crashed", "message": message}
        await self._ask("POST", f"/flow_runs/{run.id}/set_state", {"state": state, "force": False})

    async def _create(self, fleet: Fleet, flow: str, key: str, parameters: dict[str, Any]) -> Run:
        deployment = await self._ask("GET", f"/deployments/name/{flow}/{self.deployment}")
        body = {
            "name": f"{flow}-{fleet.name}",
            "parameters": {"target": {"fleet": fleet.name, "namespace": fleet.namespace}, **parameters},
            "idempotency_key": key,
            "tags": ["konverge", f"konverge/{fleet.namespace}/{fleet.name}"],
            "state": {"type": "SCHEDULED", "name": "Scheduled"},
        }
        found = await self._ask("POST", f"/deployments/{deployment['id']}/create_flow_run", body)
        run = Run(str(found["id"]), flow, key, *_state(found))
        log.info("fleet %s/%s: run %s of %s is %s", fleet.namespace, fleet.name, run.id, flow, run.state)
        return run

    async def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        headers = read_authorization(self.environment)
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT, headers=headers, trust_env=False) as client:
                answer = await client.request(method, self.url + path, json=body)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"Prefect at {self.url} does not answer: {error or type(error).__name__}",
                reason="PrefectUnreachable",
                hint=HINT,
            ) from error
        if answer.status_code == 404:
            raise NotFound(f"Prefect at {self.url} has no {path.lstrip('/')}", reason="PrefectNotFound", hint=HINT)
        if answer.status_code >= 300:
            text = f"Prefect at {self.url} refuses {method} {path}: HTTP {answer.status_code}"
            raise (Unavailable if answer.status_code >= 500 else Invalid)(text, reason="PrefectRefused", hint=HINT)
        found: dict[str, Any] = answer.json()
        return found


def _state(found: Mapping[str, Any]) -> tuple[str, str]:
    """Return type and name of a run's state."""
    state = found.get("state") or {}
    return str(found.get("state_type") or state.get("type") or ""), str(state.get("name") or "")
