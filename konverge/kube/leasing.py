"""Leader election by a Lease, as client-go does it: of several candidates one acts at a time.

A holder renews every :data:`RENEW_SECONDS` and stops acting :data:`GIVE_UP_SECONDS` after its last renewal, which is
before anybody else may take the lease. Expiry is judged by when *we* saw the lease change, on our own monotonic
clock, so that clocks of different machines need not agree.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from konverge.errors import Conflict, KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.resources import LEASES, Object

log = logging.getLogger(__name__)

LEASE_SECONDS = 15
GIVE_UP_SECONDS = 10.0
RENEW_SECONDS = 2.0
"""client-go's defaults for controllers (``leaderelection.go``: 15, 10 and 2 s)."""


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
    _seen: str = ""
    _seen_at: float = 0.0
    _renewed_at: float = float("-inf")

    @property
    def may_act(self) -> bool:
        """Whether this candidate holds the lease and renewed it recently enough."""
        return self.leading.is_set() and self._now() - self._renewed_at < GIVE_UP_SECONDS

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
        except (KonvergeError, TimeoutError) as error:
            log.warning("lease %s/%s: %s", self.namespace, self.name, error)
            holds = self.may_act
        if holds and not self.leading.is_set():
            log.info("lease %s/%s is held by us, %s", self.namespace, self.name, self.identity)
            self.leading.set()
        elif not holds and self.leading.is_set():
            log.warning("lease %s/%s is lost", self.namespace, self.name)
            self.leading.clear()

    async def _acquire(self) -> bool:
        lease = await self.kube.find(LEASES, self.name, self.namespace)
        started = self._now()
        try:
            if lease is None:
                await self.kube.create(LEASES, self._body({"leaseTransitions": -1}, {}))
            elif self._is_free(lease):
                await self.kube.replace(LEASES, self._body(lease["spec"], lease["metadata"]))
            else:
                return False
        except Conflict:
            return False
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
        self.leading.clear()
        try:
            async with asyncio.timeout(2):
                lease = await self.kube.get(LEASES, self.name, self.namespace)
                if lease["spec"].get("holderIdentity") == self.identity:
                    spec = {**lease["spec"], "holderIdentity": ""}
                    await self.kube.replace(LEASES, {**lease, "spec": spec})
        except (KonvergeError, TimeoutError) as error:
            log.warning("lease %s/%s was not given up: %s", self.namespace, self.name, error)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
