"""The fallback configuration: what is left when objects that the gateway refused are taken out.

Everything that depends on a refused object, directly or not, goes with it. Where a snapshot is known that the
gateway took, the same objects are put back as they were in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from konverge.translate.annotations import PLUGINS
from konverge.translate.classes import CLASS
from konverge.translate.drafts import FACADE
from konverge.translate.intake import identify, read_object
from konverge.translate.kinds import KINDS, KONG, Unusable
from konverge.translate.objects import annotations_of, namespace_of, split_list
from konverge.translate.problems import Object, ObjectRef, Problem, describe, refer
from konverge.translate.rendered import Rendered
from konverge.translate.settings import Settings
from konverge.translate.store import Key
from konverge.translate.translator import render
from konverge.translate.upstreams import UPSTREAM_POLICY

CLUSTER_SCOPED = frozenset({"KongClusterPlugin", "KongLicense", "KongVault"})
"""The kinds without a namespace that can be recognised in a gateway's answer."""

Snapshot = Mapping[Key, Object]
Broken = ObjectRef | tuple[str, str, str]
"""A refused object; a reference without uid means the object that is there."""


def list_dependencies(kind: str, value: Object) -> list[Key]:
    """Return what an object depends on, whether that exists or not."""
    namespace = namespace_of(value)
    found: list[Key] = []
    if kind in _WITH_PLUGINS:
        for item in split_list(annotations_of(value).get(PLUGINS)):
            found.append(("KongPlugin", namespace, item))
    find = _RULES.get(kind)
    return found + (find(kind, value, namespace) if find else [])


def _policy(value: Object, namespace: str) -> list[Key]:
    name = annotations_of(value).get(UPSTREAM_POLICY)
    return [("KongUpstreamPolicy", namespace, name)] if name else []


def _of_ingress(_kind: str, value: Object, namespace: str) -> list[Key]:
    spec = value.get("spec") or {}
    found = _policy(value, namespace)
    name = spec.get("ingressClassName") or annotations_of(value).get(CLASS)
    if name:
        found.append(("IngressClass", "", name))
    for rule in spec.get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            backend = path.get("backend") or {}
            if service := backend.get("service"):
                found.append(("Service", namespace, service.get("name") or ""))
            elif (resource := backend.get("resource")) and resource.get("kind") == FACADE:
                found.append((FACADE, namespace, resource.get("name") or ""))
    return found


def _of_service(_kind: str, value: Object, namespace: str) -> list[Key]:
    return _policy(value, namespace)


def _of_route(_kind: str, value: Object, namespace: str) -> list[Key]:
    return [
        ("Service", reference.get("namespace") or namespace, reference.get("name") or "")
        for rule in (value.get("spec") or {}).get("rules") or ()
        for reference in rule.get("backendRefs") or ()
        if reference.get("kind") == "Service"
    ]


def _of_layer4(_kind: str, value: Object, namespace: str) -> list[Key]:
    return [
        ("Service", namespace, (rule.get("backend") or {}).get("serviceName") or "")
        for rule in (value.get("spec") or {}).get("rules") or ()
    ]


def _of_plugin(kind: str, value: Object, namespace: str) -> list[Key]:
    sources = [value.get("configFrom"), *(patch.get("valueFrom") for patch in value.get("configPatches") or ())]
    references = [(source or {}).get("secretKeyRef") or {} for source in sources]
    return [
        (
            "Secret",
            namespace if kind == "KongPlugin" else reference.get("namespace") or "",
            reference.get("name") or "",
        )
        for reference in references
    ]


def _of_consumer(_kind: str, value: Object, namespace: str) -> list[Key]:
    return [("Secret", namespace, name) for name in value.get("credentials") or ()]


def _of_custom_entity(_kind: str, value: Object, namespace: str) -> list[Key]:
    parent = (value.get("spec") or {}).get("parentRef") or {}
    name, owner = parent.get("name") or "", parent.get("namespace") or namespace
    if parent.get("group") != KONG:
        return []
    if parent.get("kind") == "KongClusterPlugin":
        return [("KongClusterPlugin", "", name)]
    if parent.get("kind") == "KongPlugin" and owner == namespace:
        return [("KongPlugin", owner, name)]
    return []


_ROUTES = ("HTTPRoute", "GRPCRoute", "TCPRoute", "UDPRoute", "TLSRoute")
_RULES = {
    "Ingress": _of_ingress,
    "Service": _of_service,
    FACADE: _of_service,
    **dict.fromkeys(_ROUTES, _of_route),
    "TCPIngress": _of_layer4,
    "UDPIngress": _of_layer4,
    "KongPlugin": _of_plugin,
    "KongClusterPlugin": _of_plugin,
    "KongConsumer": _of_consumer,
    "KongCustomEntity": _of_custom_entity,
}
_WITH_PLUGINS = frozenset(
    {"Ingress", "Service", FACADE, *_ROUTES, "TCPIngress", "UDPIngress", "KongConsumer", "KongConsumerGroup"}
)


class Graph:
    """Who depends on whom in a snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._dependants: dict[Key, set[Key]] = {}
        for key, value in snapshot.items():
            for wanted in list_dependencies(key[0], value):
                found = self._find(wanted)
                if found is not None:
                    self._dependants.setdefault(found, set()).add(key)

    def _find(self, wanted: Key) -> Key | None:
        if wanted in self._snapshot:
            return wanted
        if wanted[0] == "KongPlugin":
            cluster = ("KongClusterPlugin", "", wanted[2])
            return cluster if cluster in self._snapshot else None
        return None

    def with_dependants(self, key: Key) -> list[Key]:
        """Return an object and everything that depends on it; nothing where it is not there."""
        if key not in self._snapshot:
            return []
        found = {key}
        waiting = [key]
        while waiting:
            for dependant in self._dependants.get(waiting.pop(), ()):
                if dependant not in found:
                    found.add(dependant)
                    waiting.append(dependant)
        return sorted(found)


@dataclass(slots=True)
class FallbackPlan:
    """Which objects a fallback configuration is made of, and why."""

    snapshot: dict[Key, Object]
    excluded: dict[Key, Key] = field(default_factory=dict)
    """Object -> the refused object because of which it is out."""
    restored: dict[Key, Key] = field(default_factory=dict)
    """The same for objects that were put back as they last worked."""
    usable: bool = True
    """False where none of the refused objects could be found."""
    problems: list[Problem] = field(default_factory=list)


def read_snapshot(objects: Iterable[Any]) -> dict[Key, Object]:
    """Return the objects that can be used, by identity; of equal identities the last one counts."""
    snapshot: dict[Key, Object] = {}
    for value in objects:
        try:
            found = read_object(value)
        except Unusable:
            snapshot.pop(identify(value), None)
            continue
        if found is not None:
            snapshot[found[0]] = found[1]
    return snapshot


def find_broken(snapshot: Snapshot, broken: Iterable[Broken]) -> list[Key]:
    """Return the refused objects that can be recognised: they have a uid, and it is the one that is meant."""
    found = []
    for item in broken:
        ref = item if isinstance(item, ObjectRef) else ObjectRef(*item)
        kind = KINDS.get(ref.kind)
        if kind is not None and not kind.namespaced:
            ref = ref._replace(namespace="")
        value = snapshot.get(ref.key)
        if value is None or not (ref.namespace or ref.kind in CLUSTER_SCOPED):
            continue
        uid = value["metadata"].get("uid")
        if uid and ref.uid in ("", uid):
            found.append(ref.key)
    return found


def plan_fallback(snapshot: Snapshot, broken: Iterable[Broken], last_valid: Snapshot | None = None) -> FallbackPlan:
    """Decide what is left out and what is put back."""
    plan = FallbackPlan(dict(snapshot))
    refused = find_broken(snapshot, broken)
    if not refused:
        plan.usable = False
        plan.snapshot = dict(last_valid or {})
        return plan
    graph = Graph(snapshot)
    for cause in refused:
        for key in graph.with_dependants(cause):
            plan.excluded.setdefault(key, cause)
    for key in plan.excluded:
        del plan.snapshot[key]
    if last_valid is not None:
        before = Graph(last_valid)
        for key, cause in plan.excluded.items():
            for restored in before.with_dependants(key):
                plan.restored.setdefault(restored, cause)
                plan.snapshot[restored] = last_valid[restored]
    plan.problems = _describe(plan, snapshot)
    return plan


def _describe(plan: FallbackPlan, snapshot: Snapshot) -> list[Problem]:
    problems = []
    for key, cause in plan.excluded.items():
        because = "it was refused" if key == cause else f"it depends on the refused {'/'.join(cause)}"
        reason, verb = "ExcludedByFallback", "is left out"
        if key in plan.restored:
            reason, verb = "RestoredByFallback", "is used as it last worked"
        ref = refer(key[0], snapshot[key], KINDS[key[0]].api_version)
        problems.append(describe(ref, reason, f"The object {verb}: {because}."))
    return problems


def render_fallback(
    objects: Iterable[Any],
    broken: Iterable[Broken],
    settings: Settings | None = None,
    last_valid: Iterable[Any] | None = None,
) -> Rendered:
    """Translate objects as if the gateway had refused some of them.

    :param broken: the refused objects, as references or (kind, namespace, name).
    :param last_valid: the objects of the last configuration that the gateway took. Where none of the refused
        objects can be recognised (no uid), their configuration is the fallback; without them it is the empty one.
    """
    before = None if last_valid is None else read_snapshot(last_valid)
    plan = plan_fallback(read_snapshot(objects), broken, before)
    rendered = render(plan.snapshot.values(), settings)
    if plan.problems:
        rendered.problems = tuple(sorted((*plan.problems, *rendered.problems)))
    return rendered
