"""Stage three: consumers and consumer groups."""

from __future__ import annotations

from collections.abc import Iterable

from konverge.translate.consumers import (
    CONSUMER,
    GROUP,
    Claimed,
    ConsumerResult,
    GroupResult,
    translate_consumer,
    translate_group,
)
from konverge.translate.incremental.dependencies import Dependencies
from konverge.translate.incremental.sections import Section
from konverge.translate.incremental.working import Working
from konverge.translate.problems import ObjectRef, Problem, describe
from konverge.translate.referring import Reference
from konverge.translate.store import Key


class Consumers:
    """Consumers by KongConsumer. Two that hold the same unique credential are both left out."""

    def __init__(self, working: Working) -> None:
        self._working = working
        self.dependencies: Dependencies[Key] = Dependencies()
        self.results: dict[Key, ConsumerResult] = {}
        self.groups: dict[Key, GroupResult] = {}
        self._holders: dict[Claimed, dict[Key, list[ObjectRef]]] = {}
        self._shown: set[Key] = set()
        self.consumers = Section(descending=False)
        self.consumer_groups = Section(descending=True)
        self.memberships = Section(descending=False)

    def update(self, touched: Iterable[Key]) -> set[Key]:
        """Translate again what was touched; returns the objects whose plugin references may differ."""
        dirty = self.dependencies.affected(touched)
        dirty |= {key for key in touched if key[0] in (CONSUMER, GROUP)}
        disputed: set[Claimed] = set()
        for key in dirty:
            if key[0] == GROUP:
                self._redo_group(key)
            else:
                self._redo_consumer(key, disputed)
        review = {key for key in dirty if key[0] == CONSUMER}
        for claimed in disputed:
            review |= self._holders.get(claimed, {}).keys()
        for key in review:
            self._show(key)
        return dirty | review

    def _redo_group(self, key: Key) -> None:
        value = self._working.objects.get(key)
        scope = self._working.scope()
        result = translate_group(value, scope) if value is not None else None
        self._record(key, value is not None, scope.reads, scope.problems)
        if result is None:
            self.groups.pop(key, None)
        else:
            self.groups[key] = result
        self.consumer_groups.replace(key, [result.entry] if result else ())

    def _record(self, key: Key, exists: bool, reads: set[Key], problems: list[Problem]) -> None:
        if exists:
            self.dependencies.record(key, reads)
        else:
            self.dependencies.forget(key)
        self._working.note(("consumer", key), problems)

    def _redo_consumer(self, key: Key, disputed: set[Claimed]) -> None:
        before = self.results.pop(key, None)
        for claimed in {claimed for claimed, _ in before.claims} if before else ():
            holders = self._holders[claimed]
            if holders.pop(key, None) is not None:
                disputed.add(claimed)
            if not holders:
                del self._holders[claimed]
        value = self._working.objects.get(key)
        scope = self._working.scope()
        result = translate_consumer(value, scope) if value is not None else None
        self._record(key, value is not None, scope.reads, scope.problems)
        if result is None:
            return
        self.results[key] = result
        for claimed, secret in result.claims:
            self._holders.setdefault(claimed, {}).setdefault(key, []).append(secret)
            disputed.add(claimed)

    def _conflicts(self, result: ConsumerResult) -> list[Claimed]:
        return [
            claimed
            for claimed in dict.fromkeys(claimed for claimed, _ in result.claims)
            if sum(len(secrets) for secrets in self._holders[claimed].values()) > 1
        ]

    def _show(self, key: Key) -> None:
        """Put a consumer into the document, or leave it out where a credential is claimed twice."""
        result = self.results.get(key)
        conflicts = self._conflicts(result) if result else []
        visible = result is not None and not conflicts
        self._working.note(("conflict", key), self._describe(key, result, conflicts) if result else ())
        self._shown.discard(key)
        if visible:
            self._shown.add(key)
        self.consumers.replace(key, [result.entry] if result and visible else ())
        self.memberships.replace(key, result.memberships if result and visible else ())

    def _describe(self, key: Key, result: ConsumerResult, conflicts: list[Claimed]) -> list[Problem]:
        problems = []
        for claimed in conflicts:
            holders = ", ".join(sorted(f"{other[1]}/{other[2]}" for other in self._holders[claimed]))
            message = f"The same {claimed[0]} credential is held more than once ({holders}): all are left out."
            problems.append(describe(result.ref, "CredentialConflict", message))
            problems += [describe(secret, "CredentialConflict", message) for secret in self._holders[claimed][key]]
        return problems

    def references_of(self, key: Key) -> list[Reference]:
        """Return the plugins that a consumer or group of the document refers to."""
        if key[0] == GROUP:
            return self.groups[key].references if key in self.groups else []
        return self.results[key].references if key in self._shown else []
