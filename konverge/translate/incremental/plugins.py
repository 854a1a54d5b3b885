"""Stage four: plugins and the entries for everything that refers to them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from konverge.translate.entities import Entry
from konverge.translate.incremental.dependencies import Dependencies
from konverge.translate.incremental.sections import Section
from konverge.translate.incremental.working import Working
from konverge.translate.plugin_config import ConfigError
from konverge.translate.plugins import (
    SHORT_HASH,
    Combination,
    PluginBase,
    PluginKey,
    combine,
    find_plugin,
    hash_places,
    list_globals,
    make_entry,
    prepare,
    report_missing,
)
from konverge.translate.problems import Object, ObjectRef, Problem, refer
from konverge.translate.referring import Reference
from konverge.translate.store import Key, Scope

GLOBALS: PluginKey = ("", "")
"""The node of the global plugins; no plugin has an empty name."""


@dataclass(slots=True)
class _Known:
    """A plugin that was found and prepared, and the entries made from it so far."""

    base: PluginBase | None
    ref: ObjectRef | None
    value: Object | None
    problems: list[Problem] = field(default_factory=list)
    entries: dict[tuple[Combination, bool], Entry] = field(default_factory=dict)
    hashes: dict[Combination, str] = field(default_factory=dict)


class Plugins:
    """Plugin entries by plugin key."""

    def __init__(self, working: Working) -> None:
        self._working = working
        self.dependencies: Dependencies[PluginKey] = Dependencies()
        self._known: dict[PluginKey, _Known] = {}
        self._referring: dict[PluginKey, dict[Hashable, list[Reference]]] = {}
        self._referred: dict[Hashable, list[Reference]] = {}
        self._dirty: set[PluginKey] = {GLOBALS}
        self.plugins = Section(descending=True)

    def refer(self, owner: Hashable, references: list[Reference]) -> None:
        """Note the references of an owner, in place of those it had before."""
        before = self._referred.get(owner)
        if before == references or (before is None and not references):
            return
        for reference in before or ():
            owners = self._referring.get(reference.key)
            if owners is not None:
                owners.pop(owner, None)
                if not owners:
                    del self._referring[reference.key]
            self._dirty.add(reference.key)
        for reference in references:
            self._referring.setdefault(reference.key, {}).setdefault(owner, []).append(reference)
            self._dirty.add(reference.key)
        if references:
            self._referred[owner] = references
        else:
            self._referred.pop(owner, None)

    def update(self, touched: Iterable[Key]) -> None:
        """Make the entries again of what was touched or is referred to differently."""
        affected = self.dependencies.affected(touched)
        for key in affected:
            self._known.pop(key, None)
        for key in affected | self._dirty:
            if key == GLOBALS:
                self._redo_globals()
            else:
                self._redo(key)
        self._dirty = set()

    def _redo_globals(self) -> None:
        scope = self._working.scope()
        entries = list_globals(scope)
        self.dependencies.record(GLOBALS, scope.reads)
        self._working.note(("plugin", GLOBALS), scope.problems)
        self.plugins.replace(GLOBALS, entries)

    def references(self, key: PluginKey) -> list[Reference]:
        """Return who refers to a plugin."""
        owners = self._referring.get(key, {})
        return [reference for references in owners.values() for reference in references]

    def known(self) -> Iterable[PluginKey]:
        """Return the plugins that anything refers to."""
        return self._referring.keys()

    def _redo(self, key: PluginKey) -> None:
        references = self.references(key)
        if not references:
            self._known.pop(key, None)
            self.dependencies.forget(key)
            self._working.note(("plugin", key), ())
            self.plugins.replace(key, ())
            return
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._find(key)
        scope = self._working.scope()
        if known.base is None and known.ref is None:
            report_missing(scope, key, references)
        self._working.note(("plugin", key), [*known.problems, *scope.problems])
        self.plugins.replace(key, self._make(key, known, known.base, references, scope) if known.base else ())

    def _find(self, key: PluginKey) -> _Known:
        scope = self._working.scope()
        found = find_plugin(scope, key)
        known = _Known(None, None, None)
        if found is not None:
            kind, value = found
            known.ref, known.value = refer(kind, value), value
            try:
                known.base = prepare(kind, value, scope)
            except ConfigError as error:
                scope.report(kind, value, "PluginConfigInvalid", f"The plugin is left out: {error}.")
        self.dependencies.record(key, scope.reads)
        known.problems = scope.problems
        return known

    def _make(
        self, key: PluginKey, known: _Known, base: PluginBase, references: list[Reference], scope: Scope
    ) -> list[Entry]:
        """Return the entries; those for combinations that were there before are the same objects."""
        combinations = combine(references)
        before, entries = known.entries, []
        named = base.instance_name is not None
        used: set[str] = set()
        fresh: dict[tuple[Combination, bool], Entry] = {}
        for combination in sorted(combinations) if named else combinations:
            whole = named and not self._claim(known, combination, used)
            memo = (combination, whole)
            entry = fresh.get(memo) or before.get(memo)
            if entry is None:
                entry = make_entry(base, combination, key, scope, whole)
            elif memo in fresh:
                entry = make_entry(base, combination, key, scope, whole)  # a repetition is an entry of its own
            fresh[memo] = entry
            entries.append(entry)
        known.entries = fresh
        known.hashes = {combination: known.hashes[combination] for combination in combinations} if named else {}
        return entries

    def _claim(self, known: _Known, combination: Combination, used: set[str]) -> bool:
        """Tell whether the short instance name is still free, and take it."""
        digest = known.hashes.get(combination)
        if digest is None:
            digest = known.hashes[combination] = hash_places(combination)[:SHORT_HASH]
        if digest in used:
            return False
        used.add(digest)
        return True

    def entries_of(self, key: PluginKey) -> list[Entry]:
        """Return the entries made from what a reference means."""
        known = self._known.get(key)
        return list(known.entries.values()) if known else []

    def configured(self) -> dict[ObjectRef, Object]:
        """Return the plugin objects that are in use."""
        return {
            known.ref: known.value
            for known in self._known.values()
            if known.ref is not None and known.value is not None
        }
