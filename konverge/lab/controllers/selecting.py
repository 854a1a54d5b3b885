"""Label selectors as Kubernetes evaluates them on objects in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from konverge.kube.resources import Object


def labels_of(item: Object) -> dict[str, str]:
    """Return the labels of an object; empty where it has none."""
    return item["metadata"].get("labels") or {}


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Tell whether a LabelSelector selects; None selects nothing, an empty one everything."""
    if selector is None:
        return False
    wanted = (selector.get("matchLabels") or {}).items()
    if any(labels.get(key) != value for key, value in wanted):
        return False
    return all(_meets(rule, labels) for rule in selector.get("matchExpressions") or ())


def includes(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Tell whether a Service's selector selects; a missing or empty one selects nothing."""
    return bool(selector) and all(labels.get(key) == value for key, value in (selector or {}).items())


def _meets(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(rule["key"])
    values = rule.get("values") or ()
    match rule["operator"]:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case _:
            return value is None
