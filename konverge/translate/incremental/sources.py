"""Stage one: what every source object asks for, gathered by Kong service."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from konverge.translate.certificates import PlacedClaim
from konverge.translate.drafts import SOURCES, Contribution, Part, RouteDraft
from konverge.translate.gateway.grpcroute import draft_grpc_route
from konverge.translate.gateway.httproute import draft_http_routes
from konverge.translate.gateway.streams import draft_tcp_route, draft_tls_route, draft_udp_route
from konverge.translate.incremental.dependencies import Dependencies
from konverge.translate.incremental.working import Working
from konverge.translate.ingress import draft_ingress
from konverge.translate.layer4 import draft_tcp_ingress, draft_udp_ingress
from konverge.translate.objects import age_order
from konverge.translate.problems import Object, refer
from konverge.translate.store import Key, Scope

Place = tuple[int, str, str, int]
"""Where a part stands among the parts of its Kong service: rank of the kind, age, name, position."""

_RANKS = {kind: rank for rank, kind in enumerate(SOURCES)}
_LAST = 1 << 30

_DRAFTERS: dict[str, Callable[[Object, Scope], Contribution | None]] = {
    "Ingress": draft_ingress,
    "TCPIngress": draft_tcp_ingress,
    "UDPIngress": draft_udp_ingress,
    "UDPRoute": draft_udp_route,
    "TCPRoute": draft_tcp_route,
    "TLSRoute": draft_tls_route,
    "GRPCRoute": draft_grpc_route,
}
TOP_RANKS = {"HTTPRoute": 4095, "GRPCRoute": 255}
"""The value of the lowest priority bits of the first of several equal matches."""


@dataclass(slots=True)
class _Placed:
    contribution: Contribution
    places: list[tuple[str, Place]]


class Sources:
    """Contributions by source object, and the parts of every Kong service."""

    def __init__(self, working: Working) -> None:
        self._working = working
        self._combined = working.settings.on("CombinedServicesFromDifferentHTTPRoutes")
        self.dependencies: Dependencies[Key] = Dependencies()
        self._placed: dict[Key, _Placed] = {}
        self._parts: dict[str, dict[Place, Part]] = {}
        self._defaults: dict[Key, tuple[tuple[str, str], Part]] = {}
        self._chosen: tuple[str, Place, Part] | None = None
        self._ties: dict[int, dict[int, tuple[tuple[object, ...], RouteDraft, str]]] = {}
        self._untied: set[int] = set()
        self._claiming: dict[Key, tuple[tuple[int, str, str], list[PlacedClaim]]] = {}
        self.claims_changed = False

    def update(self, touched: Iterable[Key]) -> set[str]:
        """Translate again what was touched; returns the names of the Kong services that may differ."""
        self.claims_changed = False
        dirty = self.dependencies.affected(touched)
        dirty |= {self._node(key) for key in touched if key[0] in _RANKS}
        changed: set[str] = set()
        for node in dirty:
            self._redo(node, changed)
        self._choose_default(changed)
        self._rank(changed)
        return changed

    def _node(self, key: Key) -> Key:
        return (key[0], key[1], "") if self._combined and key[0] == "HTTPRoute" else key

    def _redo(self, node: Key, changed: set[str]) -> None:
        self._withdraw(node, changed)
        scope = self._working.scope()
        contribution = self._draft(node, scope)
        if contribution is None and not scope.problems and node not in self._working.objects:
            self.dependencies.forget(node)
        else:
            self.dependencies.record(node, scope.reads)
        self._working.note(("source", *node), scope.problems)
        if contribution is not None:
            self._place(node, contribution, changed)

    def _draft(self, node: Key, scope: Scope) -> Contribution | None:
        kind, namespace, _ = node
        objects = self._working.objects
        if kind == "HTTPRoute" and self._combined:
            keys = sorted(key for key in self._working.of_kind(kind) if key[1] == namespace)
            return draft_http_routes([objects[key] for key in keys], scope, True) if keys else None
        value = objects.get(node)
        if value is None:
            return None
        if kind == "HTTPRoute":
            return draft_http_routes([value], scope, False)
        return _DRAFTERS[kind](value, scope)

    def _place(self, node: Key, contribution: Contribution, changed: set[str]) -> None:
        rank = _RANKS[node[0]]
        places = []
        for position, part in enumerate(contribution.parts):
            place = (rank, *age_order(part.source), position)
            self._parts.setdefault(part.service, {})[place] = part
            places.append((part.service, place))
            changed.add(part.service)
            for draft in part.routes:
                self._tie(draft, part.service)
        self._placed[node] = _Placed(contribution, places)
        if contribution.default is not None:
            self._defaults[node] = (age_order(contribution.default.source), contribution.default)
        if contribution.claims:
            value = self._working.objects[node]
            ref = refer(node[0], value)
            placed = [PlacedClaim(claim, ref) for claim in contribution.claims]
            self._claiming[node] = ((rank, *age_order(value)), placed)
            self.claims_changed = True

    def _withdraw(self, node: Key, changed: set[str]) -> None:
        placed = self._placed.pop(node, None)
        if placed is None:
            return
        for name, place in placed.places:
            parts = self._parts[name]
            part = parts.pop(place)
            if not parts:
                del self._parts[name]
            changed.add(name)
            for draft in part.routes:
                self._untie(draft)
        self._defaults.pop(node, None)
        if self._claiming.pop(node, None) is not None:
            self.claims_changed = True

    def _choose_default(self, changed: set[str]) -> None:
        """Use the default backend of the oldest Ingress that has one."""
        chosen = None
        if self._defaults:
            age, part = min(self._defaults.values(), key=lambda item: item[0])
            chosen = (part.service, (_RANKS["Ingress"], *age, _LAST), part)
        if self._chosen is not None and (chosen is None or chosen[2] is not self._chosen[2]):
            changed.add(self._chosen[0])
        if chosen is not None and (self._chosen is None or chosen[2] is not self._chosen[2]):
            changed.add(chosen[0])
        self._chosen = chosen

    def _tie(self, draft: RouteDraft, service: str) -> None:
        if draft.tie is not None:
            upper, order = draft.tie
            self._ties.setdefault(upper, {})[id(draft)] = (order, draft, service)
            self._untied.add(upper)

    def _untie(self, draft: RouteDraft) -> None:
        if draft.tie is not None:
            self._ties[draft.tie[0]].pop(id(draft), None)
            self._untied.add(draft.tie[0])

    def _rank(self, changed: set[str]) -> None:
        """Give matches with equal upper priority bits their lowest bits, the oldest first."""
        for upper in self._untied:
            tied = self._ties[upper]
            if not tied:
                del self._ties[upper]
                continue
            for position, (_, draft, service) in enumerate(sorted(tied.values(), key=lambda item: item[0])):
                priority = upper + max(TOP_RANKS[draft.kind] - position, 0)
                if draft.entity.get("priority") != priority:
                    draft.entity["priority"] = priority
                    changed.add(service)
        self._untied = set()

    def parts_of(self, name: str) -> list[Part]:
        """Return the parts of a Kong service that count: those of the latest kind, in order."""
        parts = self._parts.get(name)
        chosen = self._chosen if self._chosen is not None and self._chosen[0] == name else None
        if parts is None:
            return [chosen[2]] if chosen else []
        if len(parts) == 1 and chosen is None:
            return list(parts.values())
        found = list(parts.items()) + ([(chosen[1], chosen[2])] if chosen else [])
        found.sort(key=lambda item: item[0])
        rank = found[-1][0][0]
        return [part for place, part in found if place[0] == rank]

    def claims(self) -> list[PlacedClaim]:
        """Return the claims on TLS secrets in the order in which host names are given away."""
        ordered = sorted(self._claiming.values(), key=lambda item: item[0])
        return [claim for _, claims in ordered for claim in claims]

    def sources_of(self, name: str) -> list[Key]:
        """Return the objects that a Kong service was made from."""
        return [(part.kind, *_identity(part.source)) for part in self.parts_of(name)]

    def services_of(self, key: Key) -> list[str]:
        """Return the Kong services that an object adds to."""
        placed = self._placed.get(self._node(key))
        names = [name for name, _ in placed.places] if placed else []
        if self._chosen is not None and key in self._defaults and self._defaults[key][1] is self._chosen[2]:
            names.append(self._chosen[0])
        return list(dict.fromkeys(names))


def _identity(value: Object) -> tuple[str, str]:
    metadata = value["metadata"]
    return (metadata.get("namespace") or "", metadata["name"])
