"""Leader election by a Lease, as client-go does it: of several candidates one acts at a time.

A holder renews every :data:`RENEW_SECONDS` and stops acting :data:`GIVE_UP_SECONDS` after its last renewal, which is
before anybody else may take the lease. Expiry is judged by when *we* saw the lease change, on our own monotonic
clock, so that clocks of different machines need not agree. A renewal is one request: what was written last is
replaced, and only a conflict makes the holder read.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from konverge.errors import Conflict, KonvergeError, NotFound
from konverge.kube.client import KubeClient
from konverge.kube.resources import LEASES, Object

log = logging.getLogger(__name__)

LEASE_SECONDS = 7
GIVE_UP_SECONDS = 4.5
RENEW_SECONDS = 1.25
"""Half of client-go's defaults for controllers (``leaderelection.go``: 15, 10 and 2 s): a renewal is one request,
and after a leader was killed the next one acts within ten seconds, not twenty."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(eq=False)
class Candidate:
    """One candidate for a lease; :attr:`leading` is set while it may act."""

    kube: KubeClient
    name: str
    namespace: str
    identity: str
    clock: Callable[[], datetime] = _utc_now
    leading: asyncio.Event = field(default_factory=asyncio.Event)
    on_success: Callable[[], None] | None = None
    """Called when the API server answers again after it did not."""
    decided: bool = False
    """Whether it is known by now who holds the lease."""
    _held: Object | None = None
    """The lease as we wrote it last; None where it must be read first."""
    _seen: str = ""
    _seen_at: float = 0.0
    _renewed_at: float = float("-inf")
    _failing: bool = False
    _cleared: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def may_act(self) -> bool:
        """Whether this candidate holds the lease and renewed it recently enough."""
        return self.leading.is_set() and self.seconds_left > 0

    @property
    def seconds_left(self) -> float:
        """Seconds until this candidate must stop acting, unless it renews the lease before."""
        return self._renewed_at + GIVE_UP_SECONDS - self._now()

    async def wait_lost(self) -> None:
        """Return as soon as this candidate may not act any more: the lease is lost, or it was not renewed in time."""
        while self.may_act:
            losing = asyncio.ensure_future(self._cleared.wait())
            try:
                await asyncio.wait([losing], timeout=max(0.0, self.seconds_left))
            finally:
                losing.cancel()
        if self.leading.is_set():
            log.warning("lease %s/%s was not renewed for %.0f s", self.namespace, self.name, GIVE_UP_SECONDS)
            self._stop_leading()

    async def run(self) -> None:
        """Campaign until cancelled; a lease that is held then is given up, so that the next one need not wait."""
        try:
            while True:
                await self._try_once()
                await asyncio.sleep(RENEW_SECONDS * random.uniform(0.9, 1.1))
        finally:
            await asyncio.shield(self._release())

    async def _try_once(self) -> None:
        try:
            holds = await asyncio.wait_for(self._acquire(), GIVE_UP_SECONDS / 2)
            self.decided = True
            if self._failing and self.on_success is not None:
                self.on_success()
            self._failing = False
        except (KonvergeError, TimeoutError) as error:
            log.warning("lease %s/%s: %s", self.namespace, self.name, error or type(error).__name__)
            self._failing = True
            # What became of the write is not known, so it is read before the next one.
            self._held = None
            holds = self.may_act
        if holds and not self.leading.is_set():
            log.info("lease %s/%s is held by us, %s", self.namespace, self.name, self.identity)
            self._cleared.clear()
            self.leading.set()
        elif not holds and self.leading.is_set():
            log.warning("lease %s/%s is lost", self.namespace, self.name)
            self._stop_leading()

    def _stop_leading(self) -> None:
        self.leading.clear()
        self._cleared.set()
        self._held = None

    async def _acquire(self) -> bool:
        lease = self._held or await self.kube.find(LEASES, self.name, self.namespace)
        started = self._now()
        try:
            if lease is None:
                self._held = await self.kube.create(LEASES, self._body({"leaseTransitions": -1}, {}))
            elif self._is_free(lease):
                body = self._body(lease.get("spec") or {}, lease["metadata"])
                self._held = await self.kube.replace(LEASES, body)
            else:
                return False
        except (Conflict, NotFound):
            # Somebody wrote or deleted it: read it at once, for it may still be ours.
            again, self._held = self._held is not None, None
            return await self._acquire() if again else False
        self._renewed_at = started
        return True

    def _is_free(self, lease: Object) -> bool:
        """Whether the lease is ours, given up, or has not changed for its duration."""
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self.identity):
            return True
        change = f"{holder}/{spec.get('renewTime')}/{lease['metadata'].get('resourceVersion')}"
        if change != self._seen:
            self._seen, self._seen_at = change, self._now()
        return self._now() - self._seen_at > float(spec.get("leaseDurationSeconds") or LEASE_SECONDS)

    def _body(self, spec: Object, metadata: Object) -> Object:
        now = self.clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = spec.get("holderIdentity") == self.identity
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {**metadata, "name": self.name, "namespace": self.namespace},
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": LEASE_SECONDS,
                "acquireTime": spec.get("acquireTime", now) if ours else now,
                "renewTime": now,
                "leaseTransitions": int(spec.get("leaseTransitions", 0)) + (0 if ours else 1),
            },
        }

    async def _release(self) -> None:
        if not self.leading.is_set():
            return
        self._stop_leading()
        try:
            async with asyncio.timeout(2):
                lease = await self.kube.get(LEASES, self.name, self.namespace)
                spec = lease.get("spec") or {}
                if spec.get("holderIdentity") == self.identity:
                    spec = {**spec, "holderIdentity": ""}
                    await self.kube.replace(LEASES, {**lease, "spec": spec})
        except (KonvergeError, TimeoutError) as error:
            log.warning("lease %s/%s was not given up: %s", self.namespace, self.name, error)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
