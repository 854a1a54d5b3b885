"""What the page shows, as plain values: it is taken from the controller's memory and costs no request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from konverge.decide.assessing import State, classify_proxy, notice_of
from konverge.model.condition import Condition
from konverge.model.fleet import Fleet
from konverge.model.proxy import ProxyStatus

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fleet and its proxies at one moment. ``fleet`` is None while the ProxyFleet does not exist."""

    fleet: Fleet | None
    proxies: Mapping[str, ProxyStatus] = field(default_factory=dict)
    """By pod name. A status that did not change should be the same object: it is not rendered again."""
    revision: int = 0
    """The revision that is desired now."""
    error: str = ""
    """The last failure of the controller itself; "" where there was none."""
    leading: bool = True
    """Whether this replica acts: another one's memory may be newer."""


class SnapshotSource(Protocol):
    """Something that knows the fleet, such as the controller's reconciler behind an adapter."""

    def snapshot(self) -> Snapshot:
        """Return what is known now; called often, so it must be cheap and must not wait."""


def describe_fleet(snapshot: Snapshot, states: Mapping[str, State]) -> Row:
    """Return the head of the page: names, revision, counts by state, conditions."""
    counts = {state.value: 0 for state in State}
    for state in states.values():
        counts[state.value] += 1
    fleet = snapshot.fleet
    row: Row = {
        "name": fleet.name if fleet else "",
        "namespace": fleet.namespace if fleet else "",
        "revision": snapshot.revision or (fleet.status.current_revision if fleet else 0),
        "lastGood": fleet.status.last_good_revision if fleet else 0,
        "lastSync": _stamp(fleet.status.last_sync) if fleet else "",
        "lastRun": fleet.status.last_run if fleet else "",
        "paused": fleet.spec.paused if fleet else False,
        "pinned": fleet.spec.pinned_revision if fleet else 0,
        "conditions": [_describe_condition(c) for c in fleet.status.conditions] if fleet else [],
        "total": len(states),
        "counts": counts,
        "error": snapshot.error,
        "leading": snapshot.leading,
    }
    return row


def describe_proxy(name: str, status: ProxyStatus, state: State) -> Row:
    """Return one tile of the page with its details."""
    return {
        "name": name,
        "state": state.value,
        "phase": status.phase.value,
        "revision": status.loaded_revision,
        "desired": status.desired_revision,
        "synced": status.synced,
        "traffic": status.traffic_ready,
        "reason": status.reason,
        "message": status.message,
        "hint": status.hint,
        "hash": status.loaded_hash,
        "node": status.node,
        "ip": status.ip,
        "version": status.version,
        "lastPush": _stamp(status.last_push),
        "pushMilliseconds": status.push_milliseconds,
        "expires": _stamp(status.mtls.expires),
        "subject": status.mtls.subject,
        "issuer": status.mtls.issuer,
        "protocol": status.mtls.protocol,
        "conditions": [_describe_condition(c) for c in status.conditions],
    }


def classify_all(snapshot: Snapshot, now: datetime) -> dict[str, State]:
    """Return the state of every proxy by name."""
    if snapshot.fleet is None:
        return {name: classify_proxy(status, now) for name, status in snapshot.proxies.items()}
    notice = notice_of(snapshot.fleet.spec)
    return {name: classify_proxy(status, now, notice) for name, status in snapshot.proxies.items()}


def _describe_condition(condition: Condition) -> Row:
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "since": _stamp(condition.last_transition_time),
    }


def _stamp(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment is not None else ""
