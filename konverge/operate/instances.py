"""Writes the status of many ProxyInstances: only what changed, the newest only, at a bounded rate.

What is known of the cluster is read once (:meth:`InstanceWriter.load`) and remembered: a fleet at rest costs no
request at all, a change of the configuration costs one write per proxy. Verbs that run once use
:func:`konverge.operate.fleets.write_instance` instead.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from konverge.errors import KonvergeError, NotFound, RetryableError
from konverge.kube.client import KubeClient
from konverge.kube.resources import PROXY_INSTANCES
from konverge.model.condition import ObjectRef
from konverge.model.fleet import Fleet
from konverge.model.proxy import Phase, Proxy, ProxyStatus
from konverge.operate.clock import Clock, utc_now
from konverge.operate.events import Recorder
from konverge.operate.fleets import carry_over, create_instance, list_instances

log = logging.getLogger(__name__)

WRITES_PER_SECOND = 50.0
"""Client-go allows itself 5 to 50 requests per second; 300 proxies are written within 6 s."""
COALESCE_SECONDS = 0.25
"""A proxy that goes through several phases within this time is written once."""
IDLE_DETAILS = ("attempts",)
"""Fields that say how a visit went; a difference in them alone is no reason to write."""
LONGEST_DELAY = 30.0


@dataclass(slots=True)
class InstanceWriter:
    """The statuses of one fleet's proxies, as they are and as they are written."""

    kube: KubeClient
    fleet: Fleet
    per_second: float = WRITES_PER_SECOND
    clock: Clock = utc_now
    recorder: Recorder | None = None
    """Told on the pod when a proxy is quarantined and when it has recovered."""
    writes: int = 0
    """Requests that changed something, since the start."""
    statuses: dict[str, ProxyStatus] = field(default_factory=dict)
    """The newest status by pod name, written or not."""
    _written: dict[str, ProxyStatus] = field(default_factory=dict)
    _pending: dict[str, Proxy] = field(default_factory=dict)
    _work: asyncio.Event = field(default_factory=asyncio.Event)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _loaded: bool = False

    async def load(self) -> None:
        """Read what the cluster holds: one list. What was noted before it stays the newest."""
        held = await list_instances(self.kube, self.fleet)
        fresh = {
            name: carry_over(held[name], self.statuses[name]) if name in held else self.statuses[name]
            for name in self._pending
        }
        self._written, self.statuses = held, {**held, **fresh}
        self._loaded = True

    def note(self, proxy: Proxy, status: ProxyStatus) -> bool:
        """Take the newest status of a proxy; True where it differs enough to be written."""
        before = self.statuses.get(proxy.name)
        fresh = carry_over(before, status) if before is not None else status
        if before is not None and proxy.name not in self._pending and self._is_same(before, fresh):
            return False
        self.statuses[proxy.name] = fresh
        self._pending[proxy.name] = proxy
        self._work.set()
        if self.recorder is not None and before is not None:
            tell_transition(self.recorder, proxy, before, fresh)
        return True

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget proxies that are gone: their objects go with their pods."""
        alive = set(names)
        for table in (self.statuses, self._written, self._pending):
            for name in [name for name in table if name not in alive]:
                del table[name]

    async def run(self) -> None:
        """Write what is noted until cancelled; a failing API server is asked again with growing pauses."""
        failures = 0
        while True:
            await self._work.wait()
            await asyncio.sleep(COALESCE_SECONDS)
            try:
                await self.flush()
                failures = 0
            except KonvergeError as error:
                failures += 1
                delay = min(LONGEST_DELAY, 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0)
                log.warning("status of fleet %s, again in %.1f s: %s", self.fleet.name, delay, error.message)
                await asyncio.sleep(delay)

    async def flush(self) -> None:
        """Write everything that is pending; raises RetryableError and keeps the rest for the next time."""
        async with self._writing:
            self._work.clear()
            if not self._loaded:
                await self.load()
            try:
                while self._pending:
                    name, proxy = next(iter(self._pending.items()))
                    del self._pending[name]
                    if name in self.statuses and await self._write(proxy, self.statuses[name]):
                        await asyncio.sleep(1.0 / self.per_second)
            finally:
                if self._pending:
                    self._work.set()

    async def _write(self, proxy: Proxy, status: ProxyStatus) -> bool:
        """Write one status; False where nothing had to be written."""
        held = self._written.get(proxy.name)
        if held is not None and self._is_same(held, status):
            return False
        try:
            await self._send(proxy, status, exists=held is not None)
        except RetryableError:
            self._pending.setdefault(proxy.name, proxy)
            raise
        except KonvergeError as error:
            log.warning("status of proxy %s/%s is not written: %s", proxy.namespace, proxy.name, error.message)
            return True
        self._written[proxy.name] = status
        return True

    async def _send(self, proxy: Proxy, status: ProxyStatus, exists: bool) -> None:
        patch = {"status": replacing_patch(status)}
        for _ in range(2):
            if not exists:
                self.writes += 1
                await create_instance(self.kube, self.fleet, proxy)
            self.writes += 1
            try:
                await self.kube.patch(PROXY_INSTANCES, proxy.name, patch, self.fleet.namespace, subresource="status")
                return
            except NotFound:
                exists = False
        log.info("proxy %s/%s is gone while its status was written", proxy.namespace, proxy.name)

    def _is_same(self, before: ProxyStatus, fresh: ProxyStatus) -> bool:
        """Whether a reader would learn nothing: how often one tried, or that the same certificate was shown again."""
        changes: dict[str, Any] = {name: getattr(before, name) for name in IDLE_DETAILS}
        if fresh.mtls.verified_at is not None and before.mtls.verified_at is not None:
            changes["mtls"] = fresh.mtls.model_copy(update={"verified_at": before.mtls.verified_at})
        return fresh.model_copy(update=changes) == before


def tell_transition(recorder: Recorder, proxy: Proxy, before: ProxyStatus, after: ProxyStatus) -> None:
    """Record on the pod that a proxy was set apart (the reason is its own), or that it is back."""
    sick, was = after.phase is Phase.QUARANTINED, before.phase is Phase.QUARANTINED
    ref = ObjectRef(kind="Pod", name=proxy.name, namespace=proxy.namespace, uid=proxy.uid)
    if sick and not was:
        recorder.record(ref, "Quarantined", f"{after.reason}: {after.message}", hint=after.hint)
    elif was and after.phase is Phase.SERVING:
        recorder.record(ref, "Recovered", f"serves revision {after.loaded_revision}, after {before.reason}", "Normal")


def replacing_patch(status: ProxyStatus) -> dict[str, Any]:
    """Return the merge patch that leaves exactly this status: absent fields are null, lists are whole (RFC 7396)."""
    patch = status.model_dump(mode="json", by_alias=True)
    patch["conditions"] = [condition.to_json() for condition in status.conditions]
    return patch
