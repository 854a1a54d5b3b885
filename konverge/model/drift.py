"""Drift: what a proxy has loaded against what it should have loaded."""

from __future__ import annotations

from enum import StrEnum

from konverge.model.base import Value
from konverge.model.condition import Outcome


class DriftKind(StrEnum):
    """How what is loaded relates to what is desired. The value is the reason that is shown."""

    IN_SYNC = "InSync"
    SYNCING = "SyncUnderWay"
    """It has another revision of this fleet while a sync runs: it is about to be reached."""
    LOST = "ConfigurationLost"
    """It has no configuration at all."""
    OLD = "OldConfiguration"
    """It has another revision of this fleet: a restart with what was on its disk, or a push that passed it by."""
    FOREIGN = "ForeignConfiguration"
    """It has something that no revision is: somebody posted by hand."""
    SILENT = "ProxyUnreachable"
    """It does not answer; that says nothing about its configuration."""

    @property
    def drifted(self) -> bool:
        """Whether the proxy runs something that it should not."""
        return self in (DriftKind.LOST, DriftKind.OLD, DriftKind.FOREIGN)


DRIFT_REASONS = frozenset(kind.value for kind in DriftKind if kind.drifted)
"""Reasons of a proxy that an audit found drifted."""


class DriftAction(StrEnum):
    """What is done about it."""

    NONE = "none"
    WAIT = "wait"
    """Look again later."""
    REPORT = "report"
    HEAL = "heal"


class Drift(Value):
    """The verdict on one proxy."""

    kind: DriftKind
    action: DriftAction
    outcome: Outcome
    revision: int = 0
    """The number of the revision that is loaded; 0 where it is none of the fleet's."""


class FieldDifference(Value):
    """One difference in entities as it may be shown: ``loaded`` against ``desired``, secrets hidden."""

    kind: str
    entity: str
    change: str
    """``added`` (loaded only), ``missing`` (desired only) or ``changed``."""
    field: str = ""
    loaded: str = ""
    desired: str = ""


class ProxyDrift(Value):
    """One proxy in the report of an audit."""

    proxy: str
    loaded_hash: str = ""
    drift: Drift
    differences: tuple[FieldDifference, ...] = ()
    uncounted: int = 0
    """Differences beyond those that are listed."""
    note: str = ""
    """Why entities were not compared, or that they differ in nothing that Kong acts on."""
    healed: bool | None = None
    """Whether the desired configuration was brought back; None where it was not tried."""
    healing: Outcome | None = None


class DriftReport(Value):
    """What an audit found on a fleet."""

    fleet: str
    namespace: str
    revision: int
    hash: str
    policy: str
    proxies: tuple[ProxyDrift, ...] = ()

    @property
    def drifted(self) -> tuple[ProxyDrift, ...]:
        """The proxies that run something that they should not."""
        return tuple(found for found in self.proxies if found.drift.kind.drifted)

    @property
    def unhealed(self) -> tuple[ProxyDrift, ...]:
        """The drifted proxies that were not brought back."""
        return tuple(found for found in self.drifted if not found.healed)
