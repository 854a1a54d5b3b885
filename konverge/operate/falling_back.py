"""Syncs what the sources come to, and where proxies refuse it, the same without the objects to blame.

A refusal at the canary touches nobody else. The objects that Kong names are taken out, their last valid versions
put back, and the canary gets that. Routes that are live are never dropped for it: where a broken object has no known
valid version but the last good revision has entities of it, the last good revision stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Unpack

import orjson

from konverge.kong.locating import find_reference
from konverge.kube.client import KubeClient
from konverge.kube.resources import Object
from konverge.model.condition import Outcome
from konverge.model.fleet import Fleet
from konverge.model.proxy import Blame, Proxy
from konverge.model.revision import Revision, RevisionOutcome
from konverge.operate.clock import Clock
from konverge.operate.ports import Gateways
from konverge.operate.remembering import Memory, drop_memory, load_memory, store_memory
from konverge.operate.rendering import finish_revision, translation_settings
from konverge.operate.revisions import record_verdict, store_revision
from konverge.operate.syncing import Options, Run, Stop, SyncReport, Verdict, prepare_run
from konverge.translate import FallbackPlan, Problem, plan_fallback, render
from konverge.translate.fallback import read_snapshot
from konverge.translate.store import Key

ROUNDS = 3
"""Fallbacks that are tried in one sync: each takes out what the proxy named, and it may name more afterwards."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What the sources come to: a draft (number 0, stored here) or a stored revision, and the sources themselves.

    ``sources`` returns the objects that the draft was made from; it is read after the sync and where a fallback is
    due. ``versions`` are the newest resourceVersions by kind, kept with the revision.
    """

    draft: Revision
    sources: Callable[[], Iterable[Object]] = field(repr=False)
    author: str = ""
    problems: tuple[Problem, ...] = ()
    versions: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Fallback:
    """A fallback configuration: what is left, and what it leaves out or uses in an older version."""

    plan: FallbackPlan = field(repr=False)
    draft: Revision
    problems: tuple[Problem, ...]
    endangered: tuple[Key, ...]
    """Objects that it would drop although the last good revision has entities of them."""

    @property
    def reason(self) -> str:
        """Why the revision is not what the sources come to, for its record."""
        causes = sorted({"/".join(cause) for cause in self.plan.excluded.values()})
        more = f" and {len(causes) - 3} more" if len(causes) > 3 else ""
        return f"fallback without {', '.join(causes[:3])}{more}"


async def sync_sources(
    kube: KubeClient,
    fleet: Fleet,
    gateways: Gateways,
    desired: Desired,
    proxies: Sequence[Proxy],
    *,
    previous: Revision | None = None,
    memory: Memory | None = None,
    **options: Unpack[Options],
) -> SyncReport:
    """Store and push what the sources come to; of what proxies refuse, everything but the objects to blame.

    The report's ``revision`` is what is in force afterwards and what every further proxy should get: the draft under
    its number, a fallback, or ``previous``. ``memory`` is kept by the caller from call to call; without one the kept
    versions are read from the cluster. The other parameters are those of :func:`sync_fleet`.
    """
    run = prepare_run(kube, fleet, gateways, proxies, options)
    sync = _Sync(run, desired, previous, memory if memory is not None else Memory())
    await load_memory(kube, fleet, sync.memory)
    return await sync.run()


@dataclass(slots=True)
class _Sync:
    """One sync of sources on its way."""

    context: Run
    desired: Desired
    previous: Revision | None
    memory: Memory
    fallback: Fallback | None = None

    async def run(self) -> SyncReport:
        """Push, and fall back as often as it helps."""
        revision = await self._start()
        for left in reversed(range(ROUNDS + 1)):
            stop = await self.context.roll_out(revision)
            blamed = find_blamed(stop)
            fresh = await self._fall_back(revision, stop, blamed) if stop is not None and blamed and left else None
            if fresh is None:
                break
            revision = fresh
        return await self._conclude(revision, stop)

    async def _start(self) -> Revision:
        """Return what to push first: the draft, or a fallback where the draft is known to be refused."""
        if self.memory.broken:
            snapshot = await asyncio.to_thread(read_snapshot, list(self.desired.sources()))
            if presumed := self.memory.presume(snapshot, self.context.clock()):
                self.memory.broken = {key: self.memory.broken[key] for key in presumed}
                fallback = await self._plan(snapshot)
                if fallback is not None:
                    return await self._adopt(fallback)
            self.memory.broken = {}
        return await self._store(self.desired.draft, "")

    async def _store(self, draft: Revision, reason: str) -> Revision:
        if draft.number:
            return draft
        context, desired = self.context, self.desired
        return await store_revision(
            context.kube,
            context.fleet,
            draft,
            author=desired.author,
            reason=reason,
            sources=desired.versions,
            clock=context.clock,
        )

    async def _fall_back(self, revision: Revision, stop: Stop, blamed: tuple[Blame, ...]) -> Revision | None:
        """Return the fallback to push next; None where there is none to try."""
        snapshot = await asyncio.to_thread(read_snapshot, list(self.desired.sources()))
        if not self.memory.blame(blamed, snapshot, self.context.clock()):
            return None
        fallback = await self._plan(snapshot)
        if fallback is None:
            return None
        context, said = self.context, stop.outcome
        harmful = RevisionOutcome.HARMFUL
        await record_verdict(
            context.kube, context.fleet, revision.number, harmful, said.reason, said.message, clock=context.clock
        )
        return await self._adopt(fallback)

    async def _plan(self, snapshot: Mapping[Key, Object]) -> Fallback | None:
        """Return the fallback; what it was made from is compared first, since nothing may have changed for hours."""
        fleet, clock, memory, previous = self.context.fleet, self.context.clock, self.memory, self.previous
        given = (fleet.spec, previous.hash if previous is not None else "")

        def plan() -> Fallback | None:
            return plan_draft(fleet, snapshot, memory, previous, clock)

        fallback: Fallback | None = await asyncio.to_thread(memory.plan_once, snapshot, given, plan)
        return fallback

    async def _adopt(self, fallback: Fallback) -> Revision:
        """Store a fallback with what it must remember; one that would drop live routes gives way to the last good."""
        self.fallback = fallback
        if fallback.endangered:
            assert self.previous is not None, "nothing is live that no revision brought"
            return self.previous
        self.memory.keep(fallback.plan)
        revision = await self._store(fallback.draft, fallback.reason)
        await store_memory(self.context.kube, self.context.fleet, self.memory, revision)
        return revision

    async def _conclude(self, revision: Revision, stop: Stop | None) -> SyncReport:
        problems = self.desired.problems if self.fallback is None else self.fallback.problems
        if self.fallback is not None and self.fallback.endangered:
            return self._hold(revision, self.fallback)
        report = await self.context.conclude(revision, stop, self.previous)
        took = any(o.ok for w in report.waves if w.revision == revision.number for o in w.outcomes)
        if took and not report.harmful:
            await self._remember()
        return replace(report, problems=tuple(problems), fallback=self.fallback.reason if self.fallback else "")

    def _hold(self, previous: Revision, fallback: Fallback) -> SyncReport:
        """Report that the last good revision stays in force; the proxies were just brought to it."""
        return SyncReport(
            previous,
            Verdict.HELD,
            _describe_danger(fallback, previous),
            tuple(self.context.waves),
            (),
            tuple(self.context.skipped),
            previous.number,
            fallback.problems,
        )

    async def _remember(self) -> None:
        """Hold on to the objects that proxies took just now."""
        if self.fallback is not None:
            self.memory.valid = list(self.fallback.plan.snapshot.values())
            return
        self.memory.valid = list(self.desired.sources())
        await drop_memory(self.context.kube, self.context.fleet, self.memory)


def find_blamed(stop: Stop | None) -> tuple[Blame, ...]:
    """Return the objects that a refusal at the first proxies names; nothing where somebody took the revision."""
    if stop is None or stop.proven or stop.superseded:
        return ()
    return tuple(blame for refusal in stop.refusals for blame in refusal.blamed)


def plan_draft(
    fleet: Fleet, snapshot: Mapping[Key, Object], memory: Memory, previous: Revision | None, clock: Clock
) -> Fallback | None:
    """Plan and render the fallback for the objects that are broken; None where none of them can be recognised."""
    valid = memory.last_valid(snapshot, read_snapshot(memory.valid) if memory.valid is not None else {})
    plan = plan_fallback(snapshot, list(memory.broken), valid)
    if not plan.usable:
        return None
    rendered = render(plan.snapshot.values(), translation_settings(fleet, clock))
    problems = (*(_complain(problem, memory) for problem in plan.problems), *rendered.problems)
    rendered.problems = tuple(sorted(problems))
    lost = [key for key in plan.excluded if key not in plan.restored]
    live = find_live(previous, lost) if previous is not None and lost else ()
    return Fallback(plan, finish_revision(fleet, rendered), rendered.problems, live)


def _complain(problem: Problem, memory: Memory) -> Problem:
    broken = memory.broken.get(problem.object_ref.key)
    return problem._replace(message=f"{problem.message} Kong: {broken.message}") if broken else problem


def find_live(revision: Revision, keys: Iterable[Key]) -> tuple[Key, ...]:
    """Return the objects of which a revision has entities, by the tags of the entities."""
    wanted = set(keys)
    found: set[Key] = set()
    waiting: list[object] = [orjson.loads(revision.content)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            ref = find_reference(node.get("tags") or ()) if isinstance(node.get("tags"), list) else None
            if ref is not None and (ref.kind, ref.namespace, ref.name) in wanted:
                found.add((ref.kind, ref.namespace, ref.name))
            waiting += [child for child in node.values() if isinstance(child, (list, dict))]
    return tuple(sorted(found))


def _describe_danger(fallback: Fallback, previous: Revision) -> Outcome:
    names = ", ".join("/".join(key) for key in fallback.endangered[:3])
    complaints = " | ".join(problem.message for problem in fallback.problems if "Kong: " in problem.message)
    return Outcome(
        reason="FallbackHeld",
        message=f"The proxies refuse the configuration, and without the objects to blame {names} would lose live"
        f" entities of revision {previous.number}, which stays in force: {complaints}"[:1000],
        hint="explanation/sync.md#fallback",
    )
