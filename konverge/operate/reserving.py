"""One rotation at a time per fleet: a Lease in the fleet's namespace that the running one holds.

A holder whose process is gone lets the lease run out; where it was a process that can be looked for from here, the
lease is free at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from konverge.errors import CheckRefused, Unavailable
from konverge.kube.client import KubeClient
from konverge.kube.leasing import Candidate
from konverge.kube.resources import LEASES
from konverge.model.fleet import Fleet
from konverge.operate.claiming import name_process, release_dead

RESERVE_SECONDS = 25.0
"""How long one waits: a lease whose holder is gone runs out after 15 s."""
HINT = "reference/errors.md#rotation-running"


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to rotate a fleet; every step asks whether it still holds."""

    candidate: Candidate

    def require(self) -> None:
        """Raise Unavailable where the lease was lost: another run may be at work."""
        if not self.candidate.may_act:
            name = f"{self.candidate.namespace}/{self.candidate.name}"
            raise Unavailable(f"The lease {name} was lost; the rotation stops here", reason="LeaseLost", hint=HINT)


@asynccontextmanager
async def reserve_rotation(kube: KubeClient, fleet: Fleet) -> AsyncIterator[Reservation]:
    """Hold the fleet's rotation lease while the block runs; CheckRefused names the run that holds it."""
    name = f"{fleet.name}-rotation"
    await release_dead(kube, name, fleet.namespace)
    candidate = Candidate(kube, name, fleet.namespace, name_process())
    campaign = asyncio.create_task(candidate.run())
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(candidate.leading.wait(), RESERVE_SECONDS)
        if not candidate.leading.is_set():
            raise await _refuse(kube, fleet, name)
        yield Reservation(candidate)
    finally:
        campaign.cancel()
        await asyncio.wait({campaign})


async def _refuse(kube: KubeClient, fleet: Fleet, name: str) -> CheckRefused:
    spec = (await kube.find(LEASES, name, fleet.namespace) or {}).get("spec") or {}
    return CheckRefused(
        f"Another rotation of fleet {fleet.namespace}/{fleet.name} is running: process"
        f" {spec.get('holderIdentity')} since {spec.get('acquireTime')}",
        reason="RotationRunning",
        hint=HINT,
    )
