"""Writes what the controller knows into the cluster: proxies, fleet, events; only what changed, the newest only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from konverge.decide.assessing import assess_status
from konverge.decide.waving import HARMFUL_REASONS
from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient
from konverge.model.condition import ObjectRef, Outcome
from konverge.model.fleet import Fleet, FleetStatus
from konverge.model.proxy import Proxy, ProxyStatus
from konverge.model.revision import Revision
from konverge.operate.clock import Clock, utc_now
from konverge.operate.events import Kind, Recorder, tell_conditions
from konverge.operate.fleets import update_fleet_status
from konverge.operate.instances import InstanceWriter
from konverge.operate.recording import count_proxies
from konverge.translate.problems import Problem

log = logging.getLogger(__name__)

SUMMARY_SECONDS = 0.5
"""The fleet's own status is written at most this often."""
RETRY_SECONDS = 2.0
MOST_TOLD = 1000
"""New problems that one rendering tells, in the log and as events: a CRD that is missing can break many thousands of
objects at once, and the recorder remembers 2,000 events. What is left out is counted in the log."""


class States:
    """The states of one fleet, as they are and as they are written."""

    def __init__(self, kube: KubeClient, clock: Clock = utc_now, instance: str = "") -> None:
        self._kube = kube
        self._clock = clock
        self.recorder = Recorder(kube, instance=instance, clock=clock)
        self._writer: InstanceWriter | None = None
        self._fleet: Fleet | None = None
        self._revision: Revision | None = None
        self._harmful = False
        self._judged = True
        self._setback: Outcome | None = None
        self._due = asyncio.Event()
        self._told: frozenset[Problem] = frozenset()

    @property
    def statuses(self) -> dict[str, ProxyStatus]:
        """The newest status of every proxy by pod name, written or not."""
        return self._writer.statuses if self._writer is not None else {}

    @property
    def writes(self) -> int:
        """How many requests have written a proxy's status."""
        return self._writer.writes if self._writer is not None else 0

    @property
    def name(self) -> str:
        """NAMESPACE/NAME of the fleet."""
        return f"{self._fleet.namespace}/{self._fleet.name}" if self._fleet is not None else ""

    def open(self, fleet: Fleet) -> None:
        """Take the fleet as it is now; another fleet under the same name starts anew."""
        if self._fleet is None or self._fleet.uid != fleet.uid:
            self._writer = InstanceWriter(self._kube, fleet, clock=self._clock, recorder=self.recorder)
        if self._fleet is None or self._fleet.spec != fleet.spec:
            self._due.set()
        self._fleet = fleet

    async def load(self) -> None:
        """Read once what the cluster holds; an earlier controller wrote it."""
        if self._writer is not None:
            await self._writer.load()

    def note(self, proxy: Proxy, status: ProxyStatus) -> None:
        """Take the newest status of a proxy; it is written soon."""
        if self._writer is not None and self._writer.note(proxy, status):
            self._due.set()

    def keep_only(self, proxies: Iterable[Proxy]) -> None:
        """Forget the proxies that are gone."""
        if self._writer is not None:
            before = len(self._writer.statuses)
            self._writer.keep_only(proxy.name for proxy in proxies)
            if len(self._writer.statuses) != before:
                self._due.set()

    def aim(
        self, revision: Revision, *, harmful: bool = False, setback: Outcome | None = None, judged: bool = True
    ) -> None:
        """Note which revision is in force; ``harmful`` is what metrics or a newcomer said against it.

        One that is on its way is not ``judged``: it does not become the last good one before its roll-out ends.
        ``setback`` says why it is not what the sources say.
        """
        before = self._revision.number if self._revision is not None else revision.number
        if revision.number > before:
            self.tell_fleet("RevisionStored", f"revision {revision.number}: {revision.routes} routes")
        aimed = (revision, harmful, setback, judged)
        if aimed != (self._revision, self._harmful, self._setback, self._judged):
            self._revision, self._harmful, self._setback, self._judged = aimed
            self._due.set()

    def tell(self, ref: ObjectRef, reason: str, message: str, kind: Kind = "Normal", hint: str = "") -> None:
        """Record an event."""
        self.recorder.record(ref, reason, message, kind, hint=hint)

    def tell_proxy(self, proxy: Proxy, reason: str, message: str, kind: Kind = "Normal", hint: str = "") -> None:
        """Record an event on a pod."""
        ref = ObjectRef(kind="Pod", name=proxy.name, namespace=proxy.namespace, uid=proxy.uid)
        self.tell(ref, reason, message, kind, hint)

    def tell_fleet(self, reason: str, message: str, kind: Kind = "Normal", hint: str = "") -> None:
        """Record an event on the fleet."""
        if (fleet := self._fleet) is not None:
            ref = ObjectRef(kind="ProxyFleet", name=fleet.name, namespace=fleet.namespace, uid=fleet.uid)
            self.tell(ref, reason, message, kind, hint)

    def tell_problems(self, problems: Iterable[Problem]) -> None:
        """Record an event, and a line in the log, for every problem of the sources that is new."""
        found = frozenset(problems)
        fresh = sorted(found - self._told)
        if len(fresh) > MOST_TOLD:
            log.warning("fleet %s: %d new problems in the sources, %d are shown", self.name, len(fresh), MOST_TOLD)
        for problem in fresh[:MOST_TOLD]:
            ref = problem.object_ref
            log.warning("%s: %s: %s", ref, problem.reason, problem.message)
            self.recorder.record(ref, problem.reason, problem.message, hint=problem.hint)
        self._told = found

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.recorder.run())
            group.create_task(self._write_instances())
            group.create_task(self._write_summaries())

    async def _write_instances(self) -> None:
        while True:
            writer = self._writer
            if writer is None:
                await asyncio.sleep(SUMMARY_SECONDS)
                continue
            work = asyncio.ensure_future(writer.run())
            try:
                while writer is self._writer and not work.done():
                    await asyncio.wait([work], timeout=RETRY_SECONDS)
                if work.done():
                    work.result()
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    async def _write_summaries(self) -> None:
        while True:
            await self._due.wait()
            await asyncio.sleep(SUMMARY_SECONDS)
            try:
                await self.summarise()
            except KonvergeError as error:
                log.warning("status of the fleet: %s", error.message)
                self._due.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def flush(self) -> None:
        """Write everything now."""
        if self._writer is not None:
            await self._writer.flush()
        if self._due.is_set():
            await self.summarise()
        await self.recorder.flush()

    async def summarise(self) -> FleetStatus | None:
        """Write counts, revisions and conditions of the fleet; one read, and one write where anything differs."""
        self._due.clear()
        fleet, revision, instances, setback = self._fleet, self._revision, dict(self.statuses), self._setback
        if fleet is None or revision is None or not revision.number:
            return None
        counts = count_proxies(instances, revision)
        harmful = self._harmful or any(s.synced and s.reason in HARMFUL_REASONS for s in instances.values())
        good = counts.synced > 0 and counts.drifted == 0 and not harmful and self._judged

        def change(status: FleetStatus) -> FleetStatus:
            update: dict[str, object] = {"counts": counts, "observed_generation": fleet.generation}
            if status.current_revision != revision.number or status.counts != counts:
                update["last_sync"] = self._clock()
            update |= {"current_revision": revision.number, "current_hash": revision.hash}
            if fleet.spec.runner == "in-process":
                update["setback"] = setback
            if good:
                update |= {"last_good_revision": revision.number, "last_good_hash": revision.hash}
            fresh = assess_status(fleet.spec, status.model_copy(update=update), instances, self._clock())
            ref = ObjectRef(kind="ProxyFleet", name=fleet.name, namespace=fleet.namespace, uid=fleet.uid)
            tell_conditions(self.recorder, ref, status.conditions, fresh.conditions)
            return fresh

        return await update_fleet_status(self._kube, fleet, change)
