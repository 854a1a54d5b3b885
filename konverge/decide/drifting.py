"""Decides what a loaded hash means and what is to be done about it; pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

from konverge.model.condition import Outcome
from konverge.model.drift import Drift, DriftAction, DriftKind
from konverge.model.proxy import ZERO_HASH
from konverge.model.revision import RevisionRecord

HINT = "reference/proxy-reasons.md"
GRACE = timedelta(seconds=60)
"""How long after a revision was made a proxy may still have another one: a sync of it may be under way."""
_ANCHORS = {
    DriftKind.IN_SYNC: "configured",
    DriftKind.SYNCING: "sync-under-way",
    DriftKind.LOST: "configuration-lost",
    DriftKind.OLD: "old-configuration",
    DriftKind.FOREIGN: "foreign-configuration",
    DriftKind.SILENT: "proxy-unreachable",
}


def judge_drift(
    loaded: str | None,
    desired: str,
    known: Mapping[str, int],
    *,
    policy: Literal["heal", "report"] = "heal",
    serving: bool = True,
    syncing: bool = False,
) -> Drift:
    """Say what a proxy's loaded hash means and what to do.

    ``loaded`` is None where the proxy does not answer; ``known`` maps the hashes of the fleet's revisions to their
    numbers. ``syncing`` gives a proxy with another revision, or none yet, the time to be reached; a foreign
    configuration has no such excuse. With policy ``report`` nothing is pushed over what a *serving* proxy has
    loaded; one that has nothing, or carries no traffic, is brought up whatever the policy: there is nothing to keep.
    """
    kind = _classify(loaded, desired, known, syncing)
    number = known.get(loaded or "", 0)
    return Drift(
        kind=kind,
        action=_act(kind, policy, serving),
        outcome=Outcome(reason=kind.value, message=_explain(kind, loaded, number), hint=f"{HINT}#{_ANCHORS[kind]}"),
        revision=number,
    )


def judge_database(
    stored: str,
    differing: int,
    desired: str,
    known: Mapping[str, int],
    *,
    equal: bool,
    empty: bool = False,
    policy: Literal["heal", "report"] = "heal",
    serving: bool = True,
    syncing: bool = False,
) -> Drift:
    """Say what the contents of a database mean and what to do; the verdict on every proxy that routes by it.

    ``stored`` is the hash of the revision that it says it holds, ``differing`` how many entities are not those of the
    desired one. While a sync writes, any of its states is one on the way: ``syncing`` excuses them all.
    """
    number = known.get(stored, 0)
    if equal:
        kind = DriftKind.IN_SYNC
    elif syncing:
        kind = DriftKind.SYNCING
    elif empty:
        kind = DriftKind.LOST
    else:
        kind = DriftKind.OLD if number and stored != desired else DriftKind.FOREIGN
    message = _explain_database(kind, stored, differing, number)
    return Drift(
        kind=kind,
        action=_act(kind, policy, serving),
        outcome=Outcome(reason=kind.value, message=message, hint=f"{HINT}#{_ANCHORS[kind]}"),
        revision=number,
    )


def _explain_database(kind: DriftKind, stored: str, differing: int, number: int) -> str:
    if kind is DriftKind.IN_SYNC:
        return "the database holds the desired configuration"
    if kind is DriftKind.LOST:
        return "the database holds nothing of this fleet"
    says = f"revision {number}" if number else f"hash {stored}" if stored else "no revision"
    count = "1 entity differs" if differing == 1 else f"{differing} entities differ"
    text = f"the database says that it holds {says}, and {count} from the desired one"
    match kind:
        case DriftKind.SYNCING:
            return f"a sync is under way; {text}"
        case DriftKind.OLD:
            return f"{text}: it was restored from an old state, or a sync passed it by"
        case _:
            return f"{text}: somebody changed it by hand"


def _classify(loaded: str | None, desired: str, known: Mapping[str, int], syncing: bool) -> DriftKind:
    if not loaded:
        return DriftKind.SILENT
    if loaded == desired:
        return DriftKind.IN_SYNC
    if loaded == ZERO_HASH:
        return DriftKind.SYNCING if syncing else DriftKind.LOST
    if loaded in known:
        return DriftKind.SYNCING if syncing else DriftKind.OLD
    return DriftKind.FOREIGN


def _act(kind: DriftKind, policy: str, serving: bool) -> DriftAction:
    if kind in (DriftKind.SILENT, DriftKind.SYNCING):
        return DriftAction.WAIT
    if not kind.drifted:
        return DriftAction.NONE
    if policy == "report" and serving and kind is not DriftKind.LOST:
        return DriftAction.REPORT
    return DriftAction.HEAL


def _explain(kind: DriftKind, loaded: str | None, number: int) -> str:
    match kind:
        case DriftKind.IN_SYNC:
            return "the desired configuration is loaded"
        case DriftKind.SYNCING:
            has = f"revision {number}" if number else "no configuration yet"
            return f"a sync is under way; it has {has}"
        case DriftKind.LOST:
            return "it has lost its configuration: it was restarted without one on its disk"
        case DriftKind.OLD:
            return f"it runs revision {number}: restarted with an old configuration, or passed by in a sync"
        case DriftKind.FOREIGN:
            return f"hash {loaded} belongs to no revision of the fleet: somebody posted a configuration by hand"
        case DriftKind.SILENT:
            return "it does not answer; what it has loaded is not known"


def is_syncing(records: tuple[RevisionRecord, ...], now: datetime, grace: timedelta = GRACE) -> bool:
    """Tell whether a sync may be under way: a revision was made a moment ago."""
    return any(record.spec.created is not None and now - record.spec.created < grace for record in records)
