"""Stage two: Kong services with their routes and upstreams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from konverge.translate.drafts import Part
from konverge.translate.entities import Entry, drop_empty
from konverge.translate.incremental.dependencies import Dependencies
from konverge.translate.incremental.sections import Section
from konverge.translate.incremental.sources import Sources
from konverge.translate.incremental.working import Working
from konverge.translate.problems import ObjectRef, refer
from konverge.translate.services import Identity, ServiceResult, assemble
from konverge.translate.store import Key


class Services:
    """Finished services by name. Of several services with one host, the first by name defines the upstream."""

    def __init__(self, working: Working, sources: Sources) -> None:
        self._working = working
        self._sources = sources
        self.dependencies: Dependencies[str] = Dependencies()
        self.results: dict[str, ServiceResult] = {}
        self._hosts: dict[str, set[str]] = {}
        self._host_of: dict[str, str] = {}
        self.clients: dict[str, tuple[Identity, ObjectRef]] = {}
        self.clients_changed = False
        self.services = Section(descending=True)
        self.upstreams = Section(descending=True)
        self._certified: set[str] = set()

    def update(self, touched: Iterable[Key], changed: set[str]) -> set[str]:
        """Assemble again what was touched; returns the names of the services that were."""
        self.clients_changed = False
        waiting = changed | self.dependencies.affected(touched)
        done: set[str] = set()
        while waiting:
            name = waiting.pop()
            done.add(name)
            waiting |= self._redo(name)
        return done

    def _redo(self, name: str) -> set[str]:
        """Assemble one service; returns the others whose say over their upstream changed by that."""
        parts = self._sources.parts_of(name)
        affected = self._move(name, parts[0].host if parts else None)
        result = None
        if parts:
            scope = self._working.scope()
            result = assemble(parts, self._owns(name), scope)
            self.dependencies.record(name, scope.reads)
            self._working.note(("service", name), scope.problems)
        else:
            self.dependencies.forget(name)
            self._working.note(("service", name), ())
        if result is None:
            affected |= self._move(name, None)
        self._keep(name, parts, result)
        return affected

    def _owns(self, name: str) -> bool:
        return min(self._hosts[self._host_of[name]]) == name

    def _move(self, name: str, host: str | None) -> set[str]:
        before = self._host_of.get(name)
        if before == host:
            return set()
        affected: set[str] = set()
        if before is not None:
            del self._host_of[name]
            names = self._hosts[before]
            owner = min(names)
            names.discard(name)
            if not names:
                del self._hosts[before]
            elif owner == name:
                affected.add(min(names))
        if host is not None:
            names = self._hosts.setdefault(host, set())
            if names and name < min(names):
                affected.add(min(names))
            names.add(name)
            self._host_of[name] = host
        return affected

    def _keep(self, name: str, parts: list[Part], result: ServiceResult | None) -> None:
        if result is None:
            self.results.pop(name, None)
            self.upstreams.replace(name, ())
            self.services.replace(name, ())
            self._keep_client(name, None)
            return
        self.results[name] = result
        self.upstreams.replace(name, [result.upstream] if self._owns(name) else ())
        client = None
        if result.service is not None and result.client_certificate is not None:
            client = (result.client_certificate, refer(parts[0].kind, parts[0].source))
        self._keep_client(name, client)
        if result.service is None:
            self.services.replace(name, ())
        elif client is None:
            self.services.replace(name, [Entry((name,), result.service)])

    def _keep_client(self, name: str, client: tuple[Identity, ObjectRef] | None) -> None:
        if client is not None:
            self._certified.add(name)
        if self.clients.get(name) != client:
            self.clients_changed = True
            if client is None:
                del self.clients[name]
            else:
                self.clients[name] = client

    def certify(self, ids: Mapping[Identity, str], all_again: bool) -> None:
        """Finish the services that present a client certificate, whose id is known by now."""
        for name in set(self.clients) if all_again else self._certified & self.clients.keys():
            service = self.results[name].service or {}
            identifier = ids.get(self.clients[name][0])
            entity = drop_empty({**service, "client_certificate": identifier or None})
            self.services.replace(name, [Entry((name,), entity)])
        self._certified = set()
