"""Which rules and matches of HTTPRoutes belong together, and what the result is called."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from konverge.translate.objects import name_of, namespace_of
from konverge.translate.problems import Object

MAX_NAME = 511
"""Characters of a combined name; go-kong's limit of 512 less one."""

_BACKEND_FIELDS = ("filters", "group", "kind", "name", "namespace", "port", "weight")
_FILTER_FIELDS = (
    "cors",
    "extensionRef",
    "requestHeaderModifier",
    "requestMirror",
    "requestRedirect",
    "responseHeaderModifier",
    "type",
    "urlRewrite",
)


@dataclass(slots=True)
class Rule:
    """One rule of an HTTPRoute."""

    route: Object
    index: int
    value: Object

    @property
    def order(self) -> str:
        """The sort key among rules of one Kong service; as text, so that rule 10 comes before rule 2."""
        return f"{namespace_of(self.route)}/{name_of(self.route)}.{self.index}"


def list_rules(route: Object) -> list[Rule]:
    """Return the rules of a route."""
    rules = (route.get("spec") or {}).get("rules") or ()
    return [Rule(route, index, value) for index, value in enumerate(rules)]


def _canonical(value: Object, fields: Sequence[str]) -> bytes:
    known = {name: _prune(value[name]) for name in fields if value.get(name) is not None}
    present = {name: item for name, item in known.items() if item not in ([], {})}
    return orjson.dumps(present, option=orjson.OPT_SORT_KEYS)


def _prune(value: Any) -> Any:
    if isinstance(value, dict):
        pruned = {name: _prune(item) for name, item in value.items() if item is not None}
        return {name: item for name, item in pruned.items() if item not in ([], {})}
    if isinstance(value, list):
        return [_prune(item) for item in value]
    return value


def _set_key(values: Iterable[Object], fields: Sequence[str]) -> str:
    return b"|".join(sorted(_canonical(value, fields) for value in values)).decode()


def backends_key(rule: Rule) -> str:
    """Return what rules of one Kong service have in common: the set of backendRefs as written."""
    return _set_key(rule.value.get("backendRefs") or (), _BACKEND_FIELDS)


def filters_key(rule: Rule) -> str:
    """Return what rules of one Kong route have in common: the set of filters as written."""
    return _set_key(rule.value.get("filters") or (), _FILTER_FIELDS)


def match_key(rule: Rule, match: Object) -> str:
    """Return what matches of one Kong route have in common: everything but the path."""
    found = [id(rule.route), match.get("method")]
    for field in ("headers", "queryParams"):
        named: dict[str, list[str | None]] = {}
        for item in match.get(field) or ():
            name = (item.get("name") or "").lower()
            named.setdefault(name, [name, item.get("type"), item.get("value")])
        found.append([named[name] for name in sorted(named)])
    return orjson.dumps(found).decode()


def single_name(rules: Sequence[Rule]) -> str:
    """Return the name of the Kong service of one HTTPRoute's rules."""
    route = rules[0].route
    index = min(rule.index for rule in rules)
    return f"httproute.{namespace_of(route)}.{name_of(route)}.{index}"


def combined_name(rules: Sequence[Rule]) -> str:
    """Return the name of a Kong service that several HTTPRoutes of a namespace share."""
    namespace = namespace_of(rules[0].route)
    prefix = f"httproute.{namespace}.svc."
    parts = sorted(_name_backend(reference, namespace) for reference in rules[0].value.get("backendRefs") or ())
    name = prefix + ("_".join(parts) or "_")
    if len(name) <= MAX_NAME:
        return name
    return f"{prefix}{parts[0]}_combined.{hashlib.sha256(name.encode()).hexdigest()}"


def _name_backend(reference: Object, namespace: str) -> str:
    name = f"{reference.get('namespace') or namespace}.{reference.get('name') or ''}"
    if reference.get("port") is not None:
        name += f".{reference['port']}"
    if reference.get("weight") is not None:
        name += f".{reference['weight']}"
    return name
