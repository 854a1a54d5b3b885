"""Kubernetes Events on the objects that people look at: counted up where they repeat, limited where they storm.

``record`` never waits and never fails: what it was told is written by :meth:`Recorder.flush`, and an API server that
does not answer costs events, not work. An object cannot fill the event store: it has a budget of its own.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from konverge.errors import DOCS, KonvergeError, NotFound, RetryableError
from konverge.kube import resources
from konverge.kube.client import KubeClient
from konverge.kube.resources import EVENTS, SOURCES, Object, Resource
from konverge.model.condition import Condition, find_condition
from konverge.operate.clock import Clock, utc_now

log = logging.getLogger(__name__)

LONGEST_MESSAGE = 1024
"""Characters of a message (core/v1 validation of events)."""
BURST = 25
"""Writes that an object may cause at once, and ..."""
REFILL_SECONDS = 300.0
"""... seconds after which it may cause one more; both as in client-go's EventSourceObjectSpamFilter."""
REFRESH_SECONDS = 60.0
"""An event that goes on is counted in memory and written again at most this often."""
SIMILAR = 10
"""Different messages of one reason on one object that get an event of their own (client-go: maxEvents)."""
REMEMBERED = 2000
"""Events that are known to be counted up; the oldest is forgotten first (client-go: 4096)."""
ROUND = 50
"""Events that :meth:`Recorder.run` writes in one round at most: a storm is spread over time."""

Kind = Literal["Normal", "Warning"]
_Key = tuple[str, ...]
"""Kind, namespace, name and uid of the object, reason, type, message; the first six are the event's group."""


class Reference(Protocol):
    """Names one object; both the model's and the translation's references are one."""

    @property
    def kind(self) -> str:
        """The kind."""

    @property
    def namespace(self) -> str:
        """The namespace; "" for an object of the cluster."""

    @property
    def name(self) -> str:
        """The name."""

    @property
    def uid(self) -> str:
        """The uid; "" where it is not known."""


def _by_kind() -> dict[str, Resource]:
    named = [value for value in vars(resources).values() if isinstance(value, Resource)]
    return {resource.kind: resource for resource in (*SOURCES, *named)}


API_VERSIONS = {kind: resource.api_version for kind, resource in _by_kind().items()}
"""Kind to apiVersion of everything that an event can speak of."""


@dataclass(slots=True)
class _Entry:
    """One event: what it says, how often it was said, how often that is written."""

    body: Object
    first: datetime
    last: datetime
    message: str
    count: int = 1
    written: int = 0
    tried: datetime | None = None

    def is_due(self, now: datetime) -> bool:
        if self.count == self.written:
            return False
        return self.tried is None or (now - self.tried).total_seconds() >= REFRESH_SECONDS


@dataclass(slots=True)
class _Budget:
    """A token bucket of one object."""

    tokens: float
    since: datetime

    def take(self, now: datetime) -> bool:
        gained = max(0.0, (now - self.since).total_seconds()) / REFILL_SECONDS
        self.tokens, self.since = min(float(BURST), self.tokens + gained), now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(slots=True)
class Recorder:
    """Takes what happened to objects and writes it as core/v1 Events.

    ``instance`` names the process (the pod's name); ``namespace`` is where events on objects of the cluster go.
    Messages are cut at 1,024 characters; what is passed in must hold no secret.
    """

    kube: KubeClient
    component: str = "konverge-controller"
    instance: str = ""
    clock: Clock = utc_now
    dropped: int = 0
    """Events that an object's budget or a failing API server has cost."""
    _known: OrderedDict[_Key, _Entry] = field(default_factory=OrderedDict)
    _groups: Counter[_Key] = field(default_factory=Counter)
    """How many of the known events share object, reason and type."""
    _unwritten: dict[_Key, _Entry] = field(default_factory=dict)
    _budgets: OrderedDict[tuple[str, ...], _Budget] = field(default_factory=OrderedDict)
    _pending: asyncio.Event = field(default_factory=asyncio.Event)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def record(self, ref: Reference, reason: str, message: str, kind: Kind = "Warning", *, hint: str = "") -> None:
        """Note that something happened to an object; the same again is counted up."""
        now, text = self.clock(), message[:LONGEST_MESSAGE]
        group = (ref.kind, ref.namespace, ref.name, ref.uid, reason, kind)
        key = (*group, text)
        if key not in self._known and self._groups[group] >= SIMILAR:
            key, text = (*group, "\0similar"), f"(combined from similar events) {message}"[:LONGEST_MESSAGE]
        entry = self._known.get(key)
        if entry is None:
            body = self._describe(ref, reason, kind, hint, now)
            entry = self._known[key] = _Entry(body, now, now, text)
            self._groups[group] += 1
        else:
            entry.count, entry.last, entry.message = entry.count + 1, now, text
            self._known.move_to_end(key)
        self._unwritten[key] = entry
        self._forget_oldest()
        self._pending.set()

    async def run(self, pause: float = 1.0) -> None:
        """Write what was noted until cancelled, a round per ``pause`` seconds of :data:`ROUND` events at most."""
        while True:
            await self._pending.wait()
            await asyncio.sleep(pause)
            self._pending.clear()
            await self.flush(ROUND)
            if self._unwritten:
                self._pending.set()

    async def flush(self, most: int | None = None) -> None:
        """Write every event that is due, or ``most`` of them; a failing API server is logged, never raised."""
        async with self._writing:
            now, left = self.clock(), most
            for key, entry in list(self._unwritten.items()):
                if left == 0:
                    return
                if not entry.is_due(now):
                    continue
                if not self._budget(key[:4], now).take(now):
                    self.dropped += entry.count - entry.written
                    entry.written, entry.tried = entry.count, now
                elif not await self._try(entry, now):
                    return
                else:
                    left = left - 1 if left is not None else None
                if entry.count == entry.written:
                    self._unwritten.pop(key, None)

    async def _try(self, entry: _Entry, now: datetime) -> bool:
        """Write one event; False where the others should wait for a better moment."""
        count, entry.tried = entry.count, now
        try:
            await self._write(entry, count)
            entry.written = count
        except KonvergeError as error:
            log.warning("event %s is not written: %s", entry.body["reason"], error.message)
            if isinstance(error, RetryableError):
                return False
            self.dropped += count - entry.written
            entry.written = count
        return True

    async def _write(self, entry: _Entry, count: int) -> None:
        namespace, name = entry.body["metadata"]["namespace"], entry.body["metadata"]["name"]
        change = {"count": count, "message": entry.message, "lastTimestamp": _stamp(entry.last)}
        if entry.written:
            try:
                await self.kube.patch(EVENTS, name, change, namespace)
                return
            except NotFound:  # events live for an hour
                name = _name(entry.body["involvedObject"]["name"])
                entry.body["metadata"]["name"] = name
        await self.kube.create(EVENTS, {**entry.body, **change}, namespace)

    def _describe(self, ref: Reference, reason: str, kind: Kind, hint: str, now: datetime) -> Object:
        namespace = ref.namespace or "default"
        involved = {
            "apiVersion": getattr(ref, "api_version", "") or API_VERSIONS.get(ref.kind, ""),
            "kind": ref.kind,
            "namespace": ref.namespace,
            "name": ref.name,
            "uid": ref.uid,
        }
        metadata: Object = {"name": _name(ref.name), "namespace": namespace}
        if hint:
            metadata["annotations"] = {"konverge.dev/hint": DOCS + hint}
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": metadata,
            "involvedObject": {key: value for key, value in involved.items() if value},
            "reason": reason,
            "type": kind,
            "source": {"component": self.component},
            "reportingComponent": self.component,
            "reportingInstance": self.instance or self.component,
            "firstTimestamp": _stamp(now),
        }

    def _budget(self, owner: tuple[str, ...], now: datetime) -> _Budget:
        if owner not in self._budgets:
            self._budgets[owner] = _Budget(float(BURST), now)
        self._budgets.move_to_end(owner)
        while len(self._budgets) > REMEMBERED:
            self._budgets.popitem(last=False)
        return self._budgets[owner]

    def _forget_oldest(self) -> None:
        while len(self._known) > REMEMBERED:
            key, entry = self._known.popitem(last=False)
            self.dropped += entry.count - entry.written
            self._unwritten.pop(key, None)
            self._groups[key[:6]] -= 1
            if not self._groups[key[:6]]:
                del self._groups[key[:6]]


def tell_conditions(
    recorder: Recorder, ref: Reference, before: Sequence[Condition], after: Sequence[Condition]
) -> None:
    """Record on a fleet which of its conditions became true that an operator should hear of."""
    for kind in ("Setback", "IdentityExpiring", "Pinned", "Paused"):
        fresh, known = find_condition(tuple(after), kind), find_condition(tuple(before), kind)
        held = (known.status, known.reason) if known is not None else ("False", "")
        if fresh is not None and fresh.status == "True" and (fresh.status, fresh.reason) != held:
            told: Kind = "Warning" if kind in ("Setback", "IdentityExpiring") else "Normal"
            recorder.record(ref, fresh.reason, fresh.message, told, hint=fresh.hint)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(subject: str) -> str:
    """Return the name of an event as client-go builds it: the object's, a dot and what makes it unique."""
    return f"{subject[:200]}.{secrets.token_hex(8)}"
