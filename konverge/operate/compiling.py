"""Compiles revisions from the events of watches: what a change does not touch is neither translated nor serialised.

The result is, byte for byte, what :func:`konverge.operate.rendering.compile_revision` makes of the same objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from konverge.kube.resources import Object
from konverge.model.fleet import Fleet
from konverge.model.revision import Revision
from konverge.operate.clock import Clock, utc_now
from konverge.operate.rendering import finish_revision, translation_settings
from konverge.translate import Rendered, Translator
from konverge.translate.problems import Problem

EventKey = tuple[str, str, str, str]
"""(apiVersion, kind, namespace, name) of an object."""
Snapshot = Callable[[], Iterable[Object]]
"""Returns every source object as it is now."""
PROMPT = 64
PROMPT_BYTES = 1 << 20
"""Up to so many events and bytes a rendering is done at once, in a few milliseconds; more is left to a thread."""


NAMED = 10
VERBS = {"ADDED": "added", "DELETED": "removed"}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A draft revision (number 0), what it was made from, and whether its bytes differ from the ones before."""

    revision: Revision
    rendered: Rendered
    changed: bool
    cause: str = ""
    """Whose change led to other bytes, such as ``changed: Ingress/shop/web``; "" after a start from the whole."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the sources."""
        return self.rendered.problems


@dataclass(frozen=True, slots=True)
class _Made:
    """What a compiler holds: for which fleet, with what, and what came of it."""

    terms: tuple[object, ...]
    translator: Translator
    compiled: Compiled


class Compiler:
    """Keeps a translator current; take events with :meth:`take`, then :meth:`compile`. For one caller at a time."""

    def __init__(self, clock: Clock = utc_now) -> None:
        self._clock = clock
        self._waiting: dict[EventKey, tuple[str, Object]] = {}
        self._made: _Made | None = None
        self._following = False
        self.rendered = 0
        """How often something was translated."""

    def take(self, kind: str, body: Object) -> None:
        """Take one event of a watch; of several of one object the last one counts.

        Before the first compilation nothing is kept: that one reads the whole.
        """
        if not self._following:
            return
        metadata = body["metadata"]
        key = (body["apiVersion"], body["kind"], metadata.get("namespace") or "", metadata["name"])
        self._waiting[key] = (kind, body)

    async def compile(self, fleet: Fleet, snapshot: Snapshot) -> Compiled:
        """Return the draft that the objects come to now; nothing is translated where nothing that counts changed.

        ``snapshot`` is read for the first rendering, and where the fleet asks for other settings.
        """
        self._following = True
        events, self._waiting = list(self._waiting.values()), {}
        made, self._made = self._made, None  # after a failure half way the next call starts from nothing
        now = self._clock()
        terms = read_terms(fleet)
        if made is None or made.terms != terms:
            objects = list(snapshot())
            made = await asyncio.to_thread(self._start, fleet, terms, objects)
        elif len(events) > PROMPT or (events and len(made.compiled.revision.content) > PROMPT_BYTES):
            made = await asyncio.to_thread(self._follow, fleet, made, events, now)
        else:
            made = self._follow(fleet, made, events, now)
        self._made = made
        return made.compiled

    def rest(self) -> None:
        """Forget everything: the next compilation starts from the whole, and no event is kept until then."""
        self._following, self._made, self._waiting = False, None, {}

    def _start(self, fleet: Fleet, terms: tuple[object, ...], objects: list[Object]) -> _Made:
        translator = Translator(translation_settings(fleet, self._clock))
        translator.replace(objects)
        rendered = translator.render()
        self.rendered += 1
        return _Made(terms, translator, Compiled(finish_revision(fleet, rendered), rendered, True))

    def _follow(self, fleet: Fleet, made: _Made, events: list[tuple[str, Object]], now: datetime) -> _Made:
        for kind, body in events:
            made.translator.apply(kind, body)
        before = made.compiled
        if not made.translator.is_stale(now):
            return replace(made, compiled=replace(before, changed=False, cause=""))
        rendered = made.translator.render(now)
        self.rendered += 1
        if rendered.equals(before.rendered):
            revision = replace(before.revision, problems=len(rendered.problems))
            return replace(made, compiled=Compiled(revision, rendered, False))
        revision = finish_revision(fleet, rendered)
        return replace(made, compiled=Compiled(revision, rendered, True, describe_events(events)))


def describe_events(events: Iterable[tuple[str, Object]]) -> str:
    """Say which objects were added, changed and removed; the first ten of each are named."""
    groups: dict[str, list[str]] = {"added": [], "changed": [], "removed": []}
    for kind, body in events:
        metadata = body["metadata"]
        name = "/".join(part for part in (body["kind"], metadata.get("namespace"), metadata["name"]) if part)
        groups[VERBS.get(kind, "changed")].append(name)
    return "; ".join(f"{verb}: {_enumerate(sorted(names))}" for verb, names in groups.items() if names)


def _enumerate(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def read_terms(fleet: Fleet) -> tuple[object, ...]:
    """Return what of a fleet decides how sources are rendered."""
    spec = fleet.spec
    return (fleet.name, fleet.uid, spec.ingress_class, tuple(sorted(spec.features.items())), spec.router_flavor)
