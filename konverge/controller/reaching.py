"""Holds the connections to the proxies, with the identity that is in force."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from konverge.kube.client import KubeClient
from konverge.model.fleet import Fleet
from konverge.model.proxy import Proxy
from konverge.model.rotation import CertificateView
from konverge.operate.clock import Clock, utc_now
from konverge.operate.connecting import GatewayPool
from konverge.operate.identities import ensure_identity
from konverge.operate.observing import list_certificates
from konverge.operate.ports import Gateways


class Reach:
    """One pool of gateways for the life of the controller; the identity is read when it may have changed only."""

    def __init__(self, kube: KubeClient, clock: Clock = utc_now) -> None:
        self._kube = kube
        self._clock = clock
        self._pool: GatewayPool | None = None
        self._stale = True
        self._fleet_uid = ""
        self._refreshing = asyncio.Lock()
        self.readings = 0
        """How often the identity was read."""
        self.serial = ""
        """Of the client certificate that is shown; "" while there is none."""
        self.certificates: tuple[CertificateView, ...] = ()
        """The stored certificates, public parts only."""

    def expire(self) -> None:
        """Note that the stored identity may have changed."""
        self._stale = True

    async def open(self, fleet: Fleet) -> Gateways:
        """Return the gateways; an identity that is missing is made, one that changed is taken up.

        Raises NotFound or Invalid, naming the Secret, where there is no usable identity.
        """
        async with self._refreshing:
            if fleet.uid != self._fleet_uid:
                # Deleted and created again: its probes carry another token, its authority is another one.
                await self.close()
                self._fleet_uid = fleet.uid
            if self._stale or self._pool is None:
                await self._refresh(fleet)
        assert self._pool is not None, "a refresh that fails raises"
        return self._pool

    async def _refresh(self, fleet: Fleet) -> None:
        self._stale = False
        try:
            self.readings += 1
            keys = await ensure_identity(self._kube, fleet, self._clock)
            files = keys.controller.files
            if self._pool is None:
                self._pool = GatewayPool(fleet, files, self._clock)
            else:
                await self._pool.use(files)
            self.certificates = tuple(list_certificates(keys, self._clock))
            self.serial = files.identity.certificate.serial
        except BaseException:
            self._stale = True
            raise

    async def retain(self, proxies: Iterable[Proxy]) -> None:
        """Close the connections to proxies that left."""
        if self._pool is not None:
            await self._pool.retain(proxies)

    async def close(self) -> None:
        """Close all connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()
