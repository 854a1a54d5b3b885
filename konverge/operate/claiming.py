"""Lets one sync of a fleet run at a time, across processes and machines, by two Leases.

Who syncs holds ``FLEET-sync``. Who wants to is in ``FLEET-sync-next``, and the one who syncs makes way for it at the
boundary of a wave. A waiter that died no longer renews its Lease, so it supersedes nobody; a holder that died loses
its Lease after 7 s, or at once where it was a process that can be looked for from here.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import itertools
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from konverge.errors import Busy, Conflict, KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.leasing import LEASE_SECONDS, RENEW_SECONDS, Candidate
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
        """Look for a waiter until cancelled; one counts while its Lease is seen to change."""
        seen: str | None = None
        changed = float("-inf")
        while True:
            with suppress(KonvergeError):
                lease = await _read_lease(kube, fleet)
                now = asyncio.get_running_loop().time()
                if seen is not None and seen != _version(lease):
                    changed = now
                seen = _version(lease)
                holder = str((lease or {}).get("spec", {}).get("holderIdentity") or "")
                self._waiters.clear()
                if holder not in ("", self.candidate.identity) and now - changed < LEASE_SECONDS:
                    self._waiters.add(holder)
            await asyncio.sleep(RENEW_SECONDS / 2)


async def _read_lease(kube: KubeClient, fleet: Fleet) -> Object | None:
    return await kube.find(LEASES, f"{fleet.name}-sync-next", fleet.namespace)


def _version(lease: Object | None) -> str:
    return str(lease["metadata"].get("resourceVersion", "")) if lease else ""


@asynccontextmanager
async def claim_fleet(kube: KubeClient, fleet: Fleet, within: float = CLAIM_SECONDS) -> AsyncIterator[Claim]:
    """Wait up to ``within`` seconds for the right to sync a fleet, and hold it in the block; Busy without it."""
    identity = f"{name_process()}/{next(_claims)}"
    await release_dead(kube, f"{fleet.name}-sync", fleet.namespace)
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
    """Return a name of this process that no other one ever has: host, place, number, and when it started."""
    number = os.getpid() if pid is None else pid
    return f"{_name_here()}/{number}/{_started_at(number)}"


def _name_here() -> str:
    """Return a name of where process numbers mean what they mean here; two machines may have the same host name."""
    return f"{socket.gethostname()}/{_name_place()}"


@functools.cache
def _name_place() -> str:
    """Return a short hash of this boot of this machine (random(4)) and of the PID namespace (pid_namespaces(7)).

    Where they cannot be read nobody is at the same place: a random name. It never looks like a process number.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return f"at-{secrets.token_hex(6)}"
    return f"at-{hashlib.sha256(f'{boot} {space}'.encode()).hexdigest()[:12]}"


def _started_at(pid: int) -> str:
    """Return when a process started, in clock ticks since boot (field 22 of ``/proc/PID/stat``, see proc(5))."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "gone"


def is_gone(holder: str) -> bool:
    """Tell whether a holder was a process of this place that no longer exists; False where that cannot be known.

    ``holder`` is a name of a process, with or without the number of a claim behind it. A name without a
    place, as earlier versions wrote it, may be of another machine.
    """
    here = f"{_name_here()}/"
    number, _, started = holder.removeprefix(here).partition("/")
    if not holder.startswith(here) or not number.isdigit():
        return False
    return started.partition("/")[0] != _started_at(int(number))


async def release_dead(kube: KubeClient, name: str, namespace: str) -> None:
    """Free a Lease where its holder is known to be gone."""
    lease = await kube.find(LEASES, name, namespace)
    holder = str((lease or {}).get("spec", {}).get("holderIdentity") or "")
    if lease is None or not await asyncio.to_thread(is_gone, holder):
        return
    with suppress(Conflict):
        await kube.replace(LEASES, {**lease, "spec": {**lease["spec"], "holderIdentity": ""}})
