"""Proxies in memory: each holds a configuration, routes it or not, and refuses or is sick as a test says."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime

from konverge.errors import KonvergeError, Unavailable
from konverge.kong.outcomes import PushOutcome, Refused, Stored
from konverge.model.proxy import ZERO_HASH, Mtls, Proxy
from konverge.operate.ports import DataPath, Gateway

EXPIRES = datetime(2030, 1, 1, tzinfo=UTC)


class FakeProxy:
    """One proxy; ``routes`` is the marker its data path answers with."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.loaded = ZERO_HASH
        self.routes = ""
        self.markers: dict[str, str] = {}
        self.sick: KonvergeError | None = None
        self.refuses = False
        self.stuck = False
        """Stores what is pushed but goes on routing what it had."""
        self.pushes = 0
        self.log: list[str] = []

    def _answer(self, what: str) -> None:
        self.log.append(what)
        if self.sick is not None:
            raise self.sick

    async def identify(self) -> Mtls:
        self._answer("identify")
        return Mtls(subject=f"CN={self.proxy.name}", expires=EXPIRES)

    async def version(self) -> str:
        return "3.9.1"

    async def loaded_hash(self) -> str:
        self._answer("hash")
        await asyncio.sleep(0)
        return self.loaded

    async def push(self, content: bytes) -> PushOutcome:
        self._answer("push")
        self.pushes += 1
        await asyncio.sleep(0)
        if self.refuses:
            return Refused()
        self.loaded = hashlib.md5(content).hexdigest()
        if not self.stuck:
            self.routes = self.markers.get(self.loaded, "")
        return Stored(self.loaded)

    async def probe(self, marker: str, attempts: int) -> DataPath:
        self.log.append("probe")
        await asyncio.sleep(0)
        good = self.sick is None and self.routes == marker
        return DataPath(attempts, attempts if good else 0, "" if good else "0: HTTP 404 instead of 200")


class FakeGateways:
    """The proxies of a fleet by name; all share what is known about revisions."""

    def __init__(self) -> None:
        self.proxies: dict[str, FakeProxy] = {}
        self.markers: dict[str, str] = {}

    def add(self, name: str, *, ready: bool = True, namespace: str = "default") -> Proxy:
        proxy = Proxy(name=name, namespace=namespace, ip="127.0.0.2", uid=f"uid-{name}", ready=ready)
        self.proxies[name] = FakeProxy(proxy)
        return proxy

    def reach(self, proxy: Proxy) -> Gateway:
        fake = self.proxies.get(proxy.name)
        if fake is None:
            fake = self.proxies[proxy.name] = FakeProxy(proxy)
            fake.sick = Unavailable(f"{proxy.name} is not there", reason="ProxyUnreachable")
        fake.markers = self.markers
        return fake
