"""What outlives a term of leadership, and what the endpoints may see of the controller."""

from __future__ import annotations

from konverge.controller.page.snapshot import Snapshot
from konverge.controller.reconciling import Reconciler
from konverge.controller.watching import Sources
from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.leasing import Candidate
from konverge.model.fleet import Fleet


class Holder:
    """What outlives a term of leadership: caches and candidate; the reconciler is new in each term."""

    def __init__(self, kube: KubeClient, sources: Sources, candidate: Candidate) -> None:
        self.kube = kube
        self.sources = sources
        self.candidate = candidate
        self.reconciler = Reconciler(kube, sources, may_act=self.may_act)

    def may_act(self) -> bool:
        """Whether this process may change anything now."""
        return self.candidate.may_act

    def renew(self, identity: str) -> Reconciler:
        """Return a reconciler for a new term; the counters go on."""
        counters = self.reconciler.counters
        self.reconciler = Reconciler(self.kube, self.sources, may_act=self.may_act, identity=identity)
        self.reconciler.site.counters = counters
        return self.reconciler

    @property
    def ready(self) -> bool:
        """Whether the caches are filled and, on the one that acts, a revision is in force or the fleet is paused."""
        if not (self.sources.synced and self.candidate.decided):
            return False
        if not self.candidate.leading.is_set() or self.reconciler.revision is not None:
            return True
        fleet = self._read_fleet()
        return fleet is not None and fleet.spec.paused

    def snapshot(self) -> Snapshot:
        """Return fleet and proxies as this process knows them now."""
        reconciler = self.reconciler
        revision = reconciler.revision
        return Snapshot(
            self._read_fleet(),
            reconciler.site.states.statuses,
            revision.number if revision is not None else 0,
            reconciler.last_error,
            self.candidate.may_act,
        )

    def _read_fleet(self) -> Fleet | None:
        try:
            return self.reconciler.read_fleet()
        except KonvergeError:
            return None
