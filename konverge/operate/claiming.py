"""Lets one sync of a fleet run at a time, across processes and machines, by two Leases.

Who syncs holds ``FLEET-sync``. Who wants to is in ``FLEET-sync-next``, and the one who syncs makes way for it at the
boundary of a wave. A waiter that died no longer renews its Lease, so it supersedes nobody; a holder that died loses
its Lease after 15 s, or at once where it was a process of this machine.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from konverge.errors import Busy, Conflict, KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.leasing import RENEW_SECONDS, Candidate
from konverge.kube.resources import LEASES, Object
from konverge.model.fleet import Fleet

CLAIM_SECONDS = 600.0
"""How long one waits for its turn: the running sync makes way at its next wave, which may soak for minutes."""
FIRST_LOOK = 0.5
"""Seconds after which a claim counts as contended."""


_claims = itertools.count()
"""Tells several claims of one process apart."""


@dataclass(slots=True)
class Claim:
    """The right to sync a fleet."""

    candidate: Candidate
    _waiters: set[str] = field(default_factory=set)

    def superseded(self) -> bool:
        """Tell whether somebody alive waits for its turn."""
        return bool(self._waiters)

    def may_act(self) -> bool:
        """Tell whether the claim is still held."""
        return self.candidate.may_act

    async def watch(self, kube: KubeClient, fleet: Fleet) -> None:
        """Look for a waiter until cancelled; one counts when its Lease was seen to change."""
        first = await _read_lease(kube, fleet)
        while True:
            await asyncio.sleep(RENEW_SECONDS / 2)
            with suppress(KonvergeError):
                lease = await _read_lease(kube, fleet)
                holder = str((lease or {}).get("spec", {}).get("holderIdentity") or "")
                self._waiters.clear()
                if holder and holder != self.candidate.identity and _version(lease) != _version(first):
                    self._waiters.add(holder)


async def _read_lease(kube: KubeClient, fleet: Fleet) -> Object | None:
    return await kube.find(LEASES, f"{fleet.name}-sync-next", fleet.namespace)


def _version(lease: Object | None) -> str:
    return str(lease["metadata"].get("resourceVersion", "")) if lease else ""


@asynccontextmanager
async def claim_fleet(kube: KubeClient, fleet: Fleet, within: float = CLAIM_SECONDS) -> AsyncIterator[Claim]:
    """Wait up to ``within`` seconds for the right to sync a fleet, and hold it in the block; Busy without it."""
    identity = f"{name_process()}/{next(_claims)}"
    await _release_dead(kube, fleet)
    candidate = Candidate(kube, f"{fleet.name}-sync", fleet.namespace, identity)
    claim = Claim(candidate)
    async with _running(candidate.run()):
        if not await _is_leading(candidate, FIRST_LOOK):
            await _queue(kube, fleet, candidate, within)
        async with _running(claim.watch(kube, fleet)):
            yield claim


async def _queue(kube: KubeClient, fleet: Fleet, candidate: Candidate, within: float) -> None:
    """Wait in line: the one who syncs sees it and makes way."""
    waiter = Candidate(kube, f"{fleet.name}-sync-next", fleet.namespace, candidate.identity)
    async with _running(waiter.run()):
        if not await _is_leading(candidate, within):
            raise Busy(
                f"Another sync of ProxyFleet {fleet.namespace}/{fleet.name} is under way (Lease {candidate.name})",
                reason="SyncRunning",
                hint="reference/errors.md#sync-running",
            )


async def _is_leading(candidate: Candidate, within: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await candidate.leading.wait()
    return candidate.leading.is_set()


@asynccontextmanager
async def _running(work: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def name_process(pid: int | None = None) -> str:
    """Return a name of this process that no other one ever has: host, number, and when it started."""
    number = os.getpid() if pid is None else pid
    return f"{socket.gethostname()}/{number}/{_started_at(number)}"


def _started_at(pid: int) -> str:
    """Return when a process started, in clock ticks since boot (field 22 of ``/proc/PID/stat``, see proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "gone"


async def _release_dead(kube: KubeClient, fleet: Fleet) -> None:
    """Free the Lease where its holder was a process of this machine that is gone."""
    lease = await kube.find(LEASES, f"{fleet.name}-sync", fleet.namespace)
    holder = str((lease or {}).get("spec", {}).get("holderIdentity") or "")
    process, _, _ = holder.rpartition("/")
    host, number = process.rpartition("/")[0].rpartition("/")[::2]
    if lease is None or host != socket.gethostname() or not number.isdigit():
        return
    if await asyncio.to_thread(name_process, int(number)) == process:
        return
    with suppress(Conflict):
        await kube.replace(LEASES, {**lease, "spec": {**lease["spec"], "holderIdentity": ""}})
