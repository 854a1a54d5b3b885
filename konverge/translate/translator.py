"""The translator: takes objects one by one and renders the configuration that they come to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from konverge.translate.authorities import Authorities, report_broken_in_plugins, translate_authorities
from konverge.translate.certificates import Certificates, translate_certificates
from konverge.translate.custom_entities import Related, translate_custom_entities
from konverge.translate.entities import Entry
from konverge.translate.incremental.consumers import Consumers
from konverge.translate.incremental.dependencies import Dependencies
from konverge.translate.incremental.pausing import BULK, pause_collection
from konverge.translate.incremental.plugins import Plugins
from konverge.translate.incremental.sections import Section
from konverge.translate.incremental.services import Services
from konverge.translate.incremental.sources import Sources
from konverge.translate.incremental.working import Working
from konverge.translate.intake import identify, read_object, say_who
from konverge.translate.kinds import Unusable
from konverge.translate.problems import Object, describe
from konverge.translate.rendered import STUB_UPSTREAM, Rendered
from konverge.translate.settings import Settings
from konverge.translate.store import Key
from konverge.translate.vaults import translate_licenses, translate_vaults

DELETED = "DELETED"
BOOKMARK = "BOOKMARK"
_READ_ONLY = frozenset({"EndpointSlice", "slices", "Secret", "ConfigMap", "authorities"})
"""Kinds and indexes that come to nothing unless a rule reads them."""


class Translator:
    """Keeps a snapshot of the cluster and the configuration that it comes to.

    Feed it with :meth:`apply` (the events of a watch) or :meth:`replace` (a whole list), then :meth:`render`.
    Objects must not be changed after they were handed over.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._working = Working(self.settings)
        self._rejected: set[Key] = set()
        self.sources = Sources(self._working)
        self.services = Services(self._working, self.sources)
        self.consumers = Consumers(self._working)
        self.plugins = Plugins(self._working)
        self._singles: Dependencies[str] = Dependencies()
        self._certificates = Certificates()
        self._authorities = Authorities()
        self._now: datetime | None = self.settings.now
        self._lists = {
            "vaults": Section(descending=True),
            "licenses": Section(descending=True),
            "certificates": Section(descending=True),
            "ca_certificates": Section(descending=True),
        }
        self._custom: dict[str, list[Entry]] = {}
        self._fresh = True
        self._rejections = False

    @property
    def objects(self) -> dict[Key, Object]:
        """The objects of the snapshot, by (kind, namespace, name)."""
        return self._working.objects

    def apply(self, event_type: str, value: Any) -> None:
        """Take one event of a watch: ADDED, MODIFIED, DELETED; a BOOKMARK changes nothing.

        An object that cannot be used becomes a problem of the next rendering and is otherwise taken as absent.
        """
        if event_type == BOOKMARK:
            return
        if event_type == DELETED:
            self.remove(*identify(value))
            return
        self._take(value)

    def _take(self, value: Any) -> Key | None:
        """Take an object in and return its identity, None where no rule reads its kind."""
        try:
            found = read_object(value)
        except Unusable as error:
            key = identify(value)
            self._working.drop(key)
            self._rejected.add(key)
            self._rejections = True
            self._working.note(("rejected", key), [describe(say_who(value), error.reason, str(error))])
            return key
        if found is None:
            return None
        key, plain = found
        if key in self._rejected:
            self._accept(key)
        self._working.put(key, plain)
        return key

    def _accept(self, key: Key) -> None:
        if key in self._rejected:
            self._rejections = True
        self._rejected.discard(key)
        self._working.note(("rejected", key), ())

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Take an object out of the snapshot."""
        key = (kind, namespace, name)
        self._accept(key)
        self._working.drop(key)

    def replace(self, objects: Iterable[Any]) -> None:
        """Make the snapshot consist of exactly these objects; of equal identities the last one counts."""
        with pause_collection():
            seen = {self._take(value) for value in objects}
            for key in [key for key in (*self.objects, *self._rejected) if key not in seen]:
                self.remove(*key)

    def is_stale(self, now: datetime | None = None) -> bool:
        """Tell whether anything that the last rendering read, or that is a source by itself, changed since.

        What only readers give a meaning, such as the EndpointSlice of a Service that no route leads to, does not
        count. True is always safe.
        """
        touched = self._working.store.touched
        if self._fresh or self._rejections or self._expired(now or self.settings.now):
            return True
        # What custom entities read is not recorded.
        if not all(key[0] in _READ_ONLY for key in touched) or any(self._working.of_kind("KongCustomEntity")):
            return bool(touched)
        readers = (
            self.sources.dependencies,
            self.services.dependencies,
            self.consumers.dependencies,
            self.plugins.dependencies,
            self._singles,
        )
        return any(key in dependencies.readers for dependencies in readers for key in touched)

    def render(self, now: datetime | None = None) -> Rendered:
        """Return the configuration of the current snapshot.

        :param now: the moment at which CA certificates must not be expired; that of the settings where None.
        """
        touched, self._working.store.touched = self._working.store.touched, set()
        with pause_collection(len(touched) > BULK):
            return self._render(touched, now or self.settings.now)

    def _render(self, touched: set[Key], now: datetime | None) -> Rendered:
        changed = self.services.update(touched, self.sources.update(touched))
        for name in changed:
            result = self.services.results.get(name)
            self.plugins.refer(("service", name), result.references if result and result.service else [])
        for key in self.consumers.update(touched):
            self.plugins.refer(key, self.consumers.references_of(key))
        self.plugins.update(touched)
        self._redo_singles(touched, now)
        self._redo_certificates(touched)
        self._fresh = self._rejections = False
        return self._collect()

    def _redo_singles(self, touched: set[Key], now: datetime | None) -> None:
        """Redo what is small enough to be done as a whole."""
        affected = self._singles.affected(touched)
        for node, translate in (("vaults", translate_vaults), ("licenses", translate_licenses)):
            if self._fresh or node in affected:
                scope = self._working.scope()
                self._lists[node].replace(node, translate(scope))
                self._singles.record(node, scope.reads)
                self._working.note(node, scope.problems)
        if self._fresh or "authorities" in affected or self._expired(now):
            scope = self._working.scope()
            self._authorities = translate_authorities(scope, now)
            self._lists["ca_certificates"].replace("authorities", self._authorities.entries)
            self._singles.record("authorities", scope.reads)
            self._working.note("authorities", scope.problems)
        self._now = now
        if self._authorities.broken or self._fresh or ("authorities" in affected):
            scope = self._working.scope()
            report_broken_in_plugins(self._authorities.broken, self.plugins.configured(), scope)
            self._working.note("authorities in plugins", scope.problems)
        scope = self._working.scope()
        self._custom = translate_custom_entities(scope, self._relate(scope.find("all", "KongCustomEntity") != []))
        self._working.note("custom entities", scope.problems)

    def _expired(self, now: datetime | None) -> bool:
        if now == self._now:
            return False
        due = self._authorities.next_expiry
        return now is None or self._now is None or now < self._now or (due is not None and due <= now)

    def _redo_certificates(self, touched: set[Key]) -> None:
        changed = self.sources.claims_changed or self.services.clients_changed or self._fresh
        if changed or "certificates" in self._singles.affected(touched):
            scope = self._working.scope()
            clients = [self.services.clients[name] for name in sorted(self.services.clients)]
            self._certificates = translate_certificates(self.sources.claims(), clients, scope)
            self._lists["certificates"].replace("certificates", self._certificates.entries)
            self._singles.record("certificates", scope.reads)
            self._working.note("certificates", scope.problems)
            self.services.certify(self._certificates.ids, True)
        else:
            self.services.certify(self._certificates.ids, False)

    def _relate(self, wanted: bool) -> dict[tuple[str, str], Related]:
        """Return what every plugin works on, as ids; only where custom entities ask for it."""
        if not wanted:
            return {}
        owners = {
            route["name"]: name
            for name, result in self.services.results.items()
            for route in result.routes
            if result.service is not None
        }
        related = {}
        for key in self.plugins.known():
            names: dict[str, dict[str, None]] = {}
            for reference in self.plugins.references(key):
                names.setdefault(reference.target[0], {})[reference.target[1]] = None
            routes = sorted(names.get("route", ()))
            ids = self._working.ids
            related[key] = Related(
                services=[ids.service(name) or "" for name in sorted(names.get("service", ()))],
                routes=[ids.route(name) or "" for name in routes],
                route_services=list(dict.fromkeys(ids.service(owners[name]) or "" for name in routes)),
                consumers=[ids.consumer(name) or "" for name in sorted(names.get("consumer", ()))],
            )
        return related

    def small_lists(self) -> list[tuple[str, tuple[Entry, ...]]]:
        """Return the lists that are translated as a whole: vaults, certificates and the like, custom entities."""
        lists = [(name, section.entries()) for name, section in self._lists.items()]
        return lists + [(name, tuple(entries)) for name, entries in self._custom.items()]

    def _collect(self) -> Rendered:
        sections = {
            "services": self.services.services,
            "upstreams": self.services.upstreams,
            "plugins": self.plugins.plugins,
            "consumers": self.consumers.consumers,
            "consumer_groups": self.consumers.consumer_groups,
            "consumer_group_consumers": self.consumers.memberships,
            **self._lists,
        }
        lists = {name: (section.entries(), section.content()) for name, section in sections.items()}
        lists = {name: found for name, found in lists.items() if found[0]}
        if not lists:
            stub = Entry(("kong",), dict(STUB_UPSTREAM))
            lists["upstreams"] = ((stub,), stub.content)
        for name, entries in self._custom.items():
            lists[name] = (tuple(entries), b",".join(entry.content for entry in entries))
        return Rendered(lists, self._working.problems())


def render(objects: Iterable[Any], settings: Settings | None = None) -> Rendered:
    """Translate objects as a whole; of equal identities the last one counts."""
    translator = Translator(settings)
    with pause_collection():
        for value in objects:
            translator.apply("ADDED", value)
        return translator.render()
