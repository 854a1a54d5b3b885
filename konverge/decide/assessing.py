"""What is said of a fleet as a whole: its conditions, from the states of its proxies.

Every message names at most three proxies and no remaining times, so that a fleet at rest says the same thing for ever
and costs no write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from konverge.model.condition import Condition, Outcome, find_condition, set_condition
from konverge.model.drift import DRIFT_REASONS
from konverge.model.fleet import FleetSpec, FleetStatus
from konverge.model.proxy import Phase, ProxyStatus

NAMED = 3
"""Proxies that a message names; the others are counted."""
LONGEST_NOTICE = timedelta(days=7)
"""A certificate is called expiring when less is left, or less than a sixth of its lifetime; renewal comes earlier."""
HINT = "reference/resources.md#conditions-of-a-fleet"


class State(StrEnum):
    """What a proxy is, in one word; the most pressing comes last."""

    SERVING = "Serving"
    """In traffic with the desired revision."""
    EXPIRING = "Expiring"
    """Serving, but its certificate ends soon."""
    OUTDATED = "Outdated"
    """In traffic with another revision than the desired one."""
    JOINING = "Joining"
    """On its way into traffic."""
    DRIFTED = "Drifted"
    """Not in traffic, and something else is loaded."""
    QUARANTINED = "Quarantined"
    """Set apart: it failed."""


URGENCY = {state: number for number, state in enumerate(State)}


def classify_proxy(status: ProxyStatus, now: datetime, notice: timedelta = LONGEST_NOTICE) -> State:
    """Return the one word for a proxy; ``notice`` is the rest of a certificate's life that is called expiring."""
    if status.phase is Phase.QUARANTINED:
        return State.QUARANTINED
    if status.traffic_ready and status.synced:
        ends = status.mtls.expires
        return State.EXPIRING if ends is not None and ends - now < notice else State.SERVING
    if status.traffic_ready:
        return State.OUTDATED
    return State.DRIFTED if is_drifted(status) and status.phase is Phase.SERVING else State.JOINING


def notice_of(spec: FleetSpec) -> timedelta:
    """Return the rest of a leaf's life that is called expiring in a fleet."""
    return min(LONGEST_NOTICE, timedelta(hours=spec.identity.leaf_hours) / 6)


def assess_fleet(
    spec: FleetSpec,
    before: Sequence[Condition],
    instances: Mapping[str, ProxyStatus],
    now: datetime,
    setback: Outcome | None = None,
) -> tuple[Condition, ...]:
    """Return the conditions with Ready, Quarantined, Drift, Setback, IdentityExpiring, Pinned and Paused set anew."""
    conditions = tuple(before)
    for kind, (holds, reason, message) in {
        "Ready": _judge_readiness(spec, instances),
        "Quarantined": _judge_quarantine(instances),
        "Drift": _judge_drift(instances),
        "Setback": _judge_setback(setback),
        "IdentityExpiring": _judge_identities(spec, instances, now),
        "Pinned": _judge_pin(spec),
        "Paused": _judge_pause(spec),
    }.items():
        outcome = Outcome(reason=reason, message=message, hint=HINT)
        conditions = set_condition(conditions, kind, holds, outcome, now)
    return conditions


def assess_status(
    spec: FleetSpec, status: FleetStatus, instances: Mapping[str, ProxyStatus], now: datetime
) -> FleetStatus:
    """Return a status with its conditions, and with reason and message of the one that the columns show.

    That is Ready, and Setback where all is ready but not with what the sources say.
    """
    conditions = assess_fleet(spec, status.conditions, instances, now, status.setback)
    ready, setback = find_condition(conditions, "Ready"), find_condition(conditions, "Setback")
    assert ready is not None
    assert setback is not None
    if ready.status == setback.status == "True":
        ready = setback
    return status.model_copy(
        update={"conditions": conditions, "reason": ready.reason, "message": ready.message},
    )


Judged = tuple[bool, str, str]


def _judge_readiness(spec: FleetSpec, instances: Mapping[str, ProxyStatus]) -> Judged:
    if spec.paused:
        return False, "Paused", "spec.paused: nothing is pushed, rotated or onboarded"
    sick = {name: state for name, state in instances.items() if not (state.traffic_ready and state.synced)}
    if not instances:
        return False, "NoProxies", "no proxy of this fleet was seen yet"
    if not sick:
        return True, "AllServing", f"{_count(len(instances))} in sync and in traffic"
    first = min(sick)
    cause = f"{sick[first].reason}: {sick[first].message}".rstrip(": ") or "not visited yet"
    return False, "ProxiesNotReady", f"{len(sick)} of {_count(len(instances))} not ready; {first}: {cause}"[:1024]


def _judge_quarantine(instances: Mapping[str, ProxyStatus]) -> Judged:
    found = [name for name, state in instances.items() if state.phase is Phase.QUARANTINED]
    if not found:
        return False, "NoneQuarantined", ""
    return True, "ProxiesQuarantined", f"{_count(len(found))} set apart: {_list_names(found)}"


def _judge_drift(instances: Mapping[str, ProxyStatus]) -> Judged:
    found = [name for name, state in instances.items() if is_drifted(state)]
    if not found:
        return False, "NoneDrifted", ""
    return True, "ProxiesDrifted", f"{_count(len(found))} loaded something else: {_list_names(found)}"


def is_drifted(state: ProxyStatus) -> bool:
    """Whether a proxy was seen with another configuration than the one it should have.

    A database may tell the right hash while its entities were changed: then the reason of the last audit says so.
    """
    return state.loaded_hash not in ("", state.desired_hash) or state.reason in DRIFT_REASONS


def _judge_setback(setback: Outcome | None) -> Judged:
    return (True, setback.reason, setback.message) if setback is not None else (False, "SourcesInForce", "")


def _judge_identities(spec: FleetSpec, instances: Mapping[str, ProxyStatus], now: datetime) -> Judged:
    notice = notice_of(spec)
    ends = {name: state.mtls.expires for name, state in instances.items() if state.mtls.expires is not None}
    soon = {name: end for name, end in ends.items() if end - now < notice}
    if not soon:
        return False, "IdentitiesValid", ""
    earliest = min(soon.values())
    reason = "CertificateExpired" if earliest <= now else "CertificateExpiring"
    return True, reason, f"earliest end {earliest:%Y-%m-%dT%H:%MZ}: {_list_names(list(soon))}"


def _judge_pin(spec: FleetSpec) -> Judged:
    if not spec.pinned_revision:
        return False, "NotPinned", ""
    return True, "Pinned", f"spec.pinnedRevision: revision {spec.pinned_revision} whatever the sources say"


def _judge_pause(spec: FleetSpec) -> Judged:
    if not spec.paused:
        return False, "NotPaused", ""
    return True, "Paused", "spec.paused: nothing is pushed, rotated or onboarded"


def _count(number: int) -> str:
    return f"{number} proxy" if number == 1 else f"{number} proxies"


def _list_names(names: Sequence[str]) -> str:
    shown = sorted(names)[:NAMED]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
