"""Pure: on which node a pod fits best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

Object = dict[str, Any]
HOSTNAME = "kubernetes.io/hostname"


def choose_node(pod: Object, nodes: Sequence[Object], pods: Iterable[Object]) -> tuple[str, str]:
    """Return (node, "") or ("", why no node fits).

    Honours nodeName-less basics: cordons, nodeSelector, required node affinity, required and preferred pod
    anti-affinity and pod affinity by host name, topology spread by host name; then the emptiest node wins.
    Taints, resources and volumes are not looked at.
    """
    placed = [item for item in pods if item["spec"].get("nodeName") and not _is_over(item)]
    refusals: dict[str, int] = {}
    fitting = []
    for node in nodes:
        on_node = [item for item in placed if item["spec"]["nodeName"] == node["metadata"]["name"]]
        reason = _refusal(pod, node, on_node, placed)
        if reason:
            refusals[reason] = refusals.get(reason, 0) + 1
        else:
            fitting.append((_score(pod, on_node), len(on_node), str(node["metadata"]["name"])))
    if fitting:
        return min(fitting)[2], ""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(refusals.items()))
    return "", f"0/{len(nodes)} nodes are available" + (f": {reasons}." if reasons else ".")


def _is_over(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _refusal(pod: Object, node: Object, on_node: Sequence[Object], placed: Sequence[Object]) -> str:
    spec, labels = pod["spec"], node["metadata"].get("labels") or {}
    if node.get("spec", {}).get("unschedulable"):
        return "node(s) were unschedulable"
    selector = spec.get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()) or not _node_affinity(pod, labels):
        return "node(s) didn't match Pod's node affinity/selector"
    if any(_selects(term, pod, item) for term in _terms(pod, "podAntiAffinity") for item in on_node):
        return "node(s) didn't match pod anti-affinity rules"
    if any(_selects(term, item, pod) for item in on_node for term in _terms(item, "podAntiAffinity")):
        return "node(s) didn't satisfy existing pods anti-affinity rules"
    for term in _terms(pod, "podAffinity"):
        # The first pod of a group that wants to be together matches itself.
        anywhere = any(_selects(term, pod, item) for item in placed)
        if anywhere and not any(_selects(term, pod, item) for item in on_node):
            return "node(s) didn't match pod affinity rules"
    return ""


def _terms(pod: Object, kind: str) -> list[Object]:
    rules = (pod["spec"].get("affinity") or {}).get(kind) or {}
    required = rules.get("requiredDuringSchedulingIgnoredDuringExecution") or []
    return [term for term in required if term.get("topologyKey") == HOSTNAME]


def _selects(term: Object, owner: Object, other: Object) -> bool:
    namespaces = term.get("namespaces") or [owner["metadata"].get("namespace")]
    if other["metadata"].get("namespace") not in namespaces:
        return False
    return matches(term.get("labelSelector") or {}, other["metadata"].get("labels") or {})


def matches(selector: Object, labels: Object) -> bool:
    """Return whether a label selector matches labels; an empty one matches everything."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(item, labels) for item in selector.get("matchExpressions") or ())


def _expression(item: Object, labels: Object) -> bool:
    key, operator, values = item["key"], item["operator"], item.get("values") or ()
    if operator == "In":
        return bool(labels.get(key) in values)
    if operator == "NotIn":
        return bool(labels.get(key) not in values)
    return bool((key in labels) == (operator == "Exists"))


def _node_affinity(pod: Object, labels: Object) -> bool:
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(
        all(_expression(item, labels) for item in term.get("matchExpressions") or ())
        for term in required.get("nodeSelectorTerms") or ()
    )


def _score(pod: Object, on_node: Sequence[Object]) -> int:
    """Return how unwelcome the pod is on a node: smaller is better."""
    rules = (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    score = 0
    for preferred in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
        term = preferred["podAffinityTerm"]
        if term.get("topologyKey") == HOSTNAME:
            score += int(preferred["weight"]) * sum(_selects(term, pod, item) for item in on_node)
    for spread in pod["spec"].get("topologySpreadConstraints") or ():
        if spread.get("topologyKey") == HOSTNAME:
            score += 100 * sum(_selects(spread, pod, item) for item in on_node)
    return score
