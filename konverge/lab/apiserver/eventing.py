"""Events are one resource under two groups; this converts between their two shapes."""

from __future__ import annotations

from konverge.lab.apiserver.store import Object

RENAMED = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "source": "deprecatedSource",
    "count": "deprecatedCount",
}
"""Field of ``v1`` to field of ``events.k8s.io/v1``."""
BACK = {new: old for old, new in RENAMED.items()}


def to_events_v1(obj: Object) -> Object:
    """Return a stored event as events.k8s.io/v1 shows it."""
    converted = {RENAMED.get(key, key): value for key, value in obj.items()}
    return {**converted, "apiVersion": "events.k8s.io/v1", "kind": "Event"}


def from_events_v1(obj: Object) -> Object:
    """Return an event of events.k8s.io/v1 as it is stored."""
    converted = {BACK.get(key, key): value for key, value in obj.items()}
    return {**converted, "apiVersion": "v1", "kind": "Event"}
