"""Says what a sync would do, without doing it: what changes, for whom, and in which waves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from konverge.decide.waving import Wave, plan_waves
from konverge.errors import KonvergeError
from konverge.kong.database import Plan as DatabasePlan
from konverge.kong.declarative import Configuration, Difference, compare
from konverge.kube.client import KubeClient
from konverge.model.fleet import Fleet
from konverge.model.proxy import Proxy
from konverge.model.revision import Revision
from konverge.operate.connecting import open_gateways
from konverge.operate.databases import plan_database
from konverge.operate.discovering import discover_proxies
from konverge.operate.drifting import flatten_revision
from konverge.operate.ports import Gateways
from konverge.operate.rendering import compile_revision, gather_sources
from konverge.operate.revisions import load_revision
from konverge.translate import Problem

READ_SECONDS = 5.0
"""How long a proxy's hash is waited for; one that does not answer is shown as such."""
READERS = 20


@dataclass(frozen=True, slots=True)
class ProxyPlan:
    """One proxy: what it has loaded ("" where it does not answer), and whether it would get a push."""

    proxy: Proxy
    loaded: str
    pushed: bool


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What a sync would do. ``differences`` are from the revision in force to the new one, redacted."""

    revision: Revision
    current: int
    current_hash: str
    waves: tuple[Wave, ...]
    proxies: tuple[ProxyPlan, ...]
    differences: tuple[Difference, ...]
    problems: tuple[Problem, ...]
    note: str = ""
    """Why the differences could not be told."""
    operations: DatabasePlan | None = None
    """What would be written to the database, for a fleet that has one."""

    @property
    def changes(self) -> bool:
        """Whether anything would be stored or pushed."""
        if self.operations is not None:
            return not self.operations.empty
        return self.revision.hash != self.current_hash or any(plan.pushed for plan in self.proxies)


async def plan_sync(kube: KubeClient, fleet: Fleet, number: int | None = None) -> SyncPlan:
    """Find out what a sync of the sources, or of a stored revision, would do; nothing is written or pushed."""
    problems: tuple[Problem, ...] = ()
    wanted = number or fleet.spec.pinned_revision
    if wanted:
        revision = await load_revision(kube, fleet, wanted)
    else:
        sources = await gather_sources(kube)
        revision, rendered = await asyncio.to_thread(compile_revision, fleet, sources)
        problems = rendered.problems
    proxies = await discover_proxies(kube, fleet)
    operations = None
    if fleet.spec.mode == "db":
        async with open_gateways(kube, fleet) as gateways:
            operations = await plan_database(kube, fleet, gateways, revision, proxies)
    loaded = await _read_loaded(kube, fleet, proxies)
    differences, note = await _compare(kube, fleet, revision)
    return SyncPlan(
        revision,
        fleet.status.current_revision,
        fleet.status.current_hash,
        plan_waves(proxies, fleet.spec.rollout),
        tuple(ProxyPlan(p, loaded[p.name], loaded[p.name] != revision.hash) for p in proxies),
        differences,
        problems,
        note,
        operations,
    )


async def _read_loaded(kube: KubeClient, fleet: Fleet, proxies: list[Proxy]) -> dict[str, str]:
    """Read what every proxy has loaded; "" where it, or the identity to ask it with, cannot be had."""
    try:
        async with open_gateways(kube, fleet) as gateways:
            slots = asyncio.Semaphore(READERS)
            hashes = await asyncio.gather(*(_read_hash(gateways, proxy, slots) for proxy in proxies))
    except KonvergeError:
        hashes = [""] * len(proxies)
    return {proxy.name: loaded for proxy, loaded in zip(proxies, hashes, strict=True)}


async def _read_hash(gateways: Gateways, proxy: Proxy, slots: asyncio.Semaphore) -> str:
    async with slots:
        try:
            async with asyncio.timeout(READ_SECONDS):
                return await gateways.reach(proxy).loaded_hash()
        except (KonvergeError, TimeoutError):
            return ""


async def _compare(kube: KubeClient, fleet: Fleet, revision: Revision) -> tuple[tuple[Difference, ...], str]:
    if not fleet.status.current_revision:
        before, note = None, "nothing was synced before"
    else:
        try:
            before = await load_revision(kube, fleet, fleet.status.current_revision)
            note = ""
        except KonvergeError as error:
            before, note = None, error.message
    found = await asyncio.to_thread(_compare_bytes, before.content if before else None, revision.content)
    return found, note


def _compare_bytes(before: bytes | None, after: bytes) -> tuple[Difference, ...]:
    left = flatten_revision(before if before is not None else b'{"_format_version":"3.0"}')
    right: Configuration = flatten_revision(after)
    return tuple(compare(left, right))
