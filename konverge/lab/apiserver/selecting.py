"""Label and field selectors, compiled to predicates.

Grammar of label selectors: ``a=b``, ``a==b``, ``a!=b``, ``a in (b,c)``, ``a notin (b,c)``, ``a``, ``!a``,
joined by commas. Field selectors know ``=``, ``==`` and ``!=``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from konverge.lab.apiserver.statuses import StatusError, bad_request
from konverge.lab.apiserver.store import Object

Predicate = Callable[[Object], bool]

REQUIREMENT = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<missing>[\w./-]+)"
    r"|(?P<key>[\w./-]+)\s*(?:(?P<set>in|notin)\s*\(\s*(?P<values>[^()]*)\)"
    r"|(?P<op>==|!=|=)\s*(?P<value>[\w.-]*)|(?P<gt>[<>])\s*(?P<number>-?\d+))?)\s*(?:,|$)"
)
LABEL_VALUE = re.compile(r"^$|^[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?$")

COMMON_FIELDS = frozenset({"metadata.name", "metadata.namespace"})
FIELDS: dict[str, frozenset[str]] = {
    "pods": frozenset(
        {
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        }
    ),
    "events": frozenset(
        {
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        }
    ),
    "secrets": frozenset({"type"}),
    "nodes": frozenset({"spec.unschedulable"}),
    "namespaces": frozenset({"status.phase"}),
    "services": frozenset({"spec.clusterIP", "spec.type"}),
    "replicationcontrollers": frozenset({"status.replicas"}),
    "apps/replicasets": frozenset({"status.replicas"}),
    "batch/jobs": frozenset({"status.successful"}),
    "certificates.k8s.io/certificatesigningrequests": frozenset({"spec.signerName"}),
}


def compile_labels(text: str) -> Predicate | None:
    """Return a predicate for a label selector, or None where it selects everything; 400 if malformed."""
    if not text.strip():
        return None
    tests: list[Callable[[dict[str, str]], bool]] = []
    position = 0
    while position < len(text):
        match = REQUIREMENT.match(text, position)
        if match is None or match.end() == position:
            raise _unparsable(text)
        tests.append(_compile_requirement(match, text))
        position = match.end()

    def matches(obj: Object) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def _compile_requirement(match: re.Match[str], text: str) -> Callable[[dict[str, str]], bool]:
    if match["absent"]:
        missing = match["missing"]
        return lambda labels: missing not in labels
    key = match["key"]
    if match["set"]:
        values = {value.strip() for value in match["values"].split(",")}
        _check_values(values, text)
        if match["set"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match["op"]:
        value = match["value"]
        _check_values({value}, text)
        if match["op"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match["gt"]:
        return _compile_number(key, match["gt"], int(match["number"]))
    return lambda labels: key in labels


def _compile_number(key: str, operator: str, number: int) -> Callable[[dict[str, str]], bool]:
    def test(labels: dict[str, str]) -> bool:
        try:
            value = int(labels[key])
        except (KeyError, ValueError):
            return False
        return value > number if operator == ">" else value < number

    return test


def _check_values(values: set[str], text: str) -> None:
    if not all(LABEL_VALUE.match(value) for value in values):
        raise _unparsable(text)


def _unparsable(text: str) -> StatusError:
    return bad_request(f"unable to parse requirement: {text!r} is not a label selector")


def compile_fields(text: str, storage: str, selectable: frozenset[str] = frozenset()) -> Predicate | None:
    """Return a predicate for a field selector; 400 for a field that this resource cannot be selected by."""
    if not text.strip():
        return None
    tests: list[tuple[str, str, bool]] = []
    for term in _split(text):
        field, equal, value = _parse_field(term, text)
        if field not in COMMON_FIELDS | FIELDS.get(storage, frozenset()) | selectable:
            raise bad_request(f"field label not supported: {field}")
        tests.append((field, value, equal))

    def matches(obj: Object) -> bool:
        return all((read_field(obj, field) == value) == equal for field, value, equal in tests)

    return matches


def _split(text: str) -> list[str]:
    return [term.replace("\\,", ",") for term in re.split(r"(?<!\\),", text) if term.strip()]


def _parse_field(term: str, text: str) -> tuple[str, bool, str]:
    for operator in ("!=", "==", "="):
        field, found, value = term.partition(operator)
        if found:
            return field.strip(), operator != "!=", value.strip().replace("\\=", "=").replace("\\\\", "\\")
    raise bad_request(f"invalid selector: '{text}'; can't understand '{term}'")


def read_field(obj: Object, path: str) -> str:
    """Return a field as selectors compare it; a missing one is the empty string."""
    value: Any = obj
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if path == "source" and isinstance(value, dict):
        return str(value.get("component") or obj.get("reportingComponent") or "")
    if value is None:
        return "false" if path in ("spec.unschedulable", "spec.hostNetwork") else ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def select_labels(selector: Object | None) -> Predicate:
    """Return a predicate for a LabelSelector object; None selects nothing, an empty one everything."""
    if selector is None:
        return lambda _: False
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []

    def matches(obj: Object) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(labels.get(k) == v for k, v in wanted.items()) and all(
            _matches_expression(labels, expression) for expression in expressions
        )

    return matches


def _matches_expression(labels: dict[str, str], expression: Object) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
    if operator == "In":
        return labels.get(key) in values
    if operator == "NotIn":
        return labels.get(key) not in values
    return bool((key in labels) == (operator == "Exists"))
