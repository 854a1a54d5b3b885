"""Proxies in memory: each holds a configuration, routes it or not, and refuses or is sick as a test says."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

from konverge.errors import KonvergeError, Unavailable
from konverge.kong.outcomes import PushOutcome, Refused, Stored
from konverge.model.counters import Counters
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
        self.refusal: Callable[[bytes], PushOutcome | None] = lambda content: None
        """Says what is refused of a configuration, and why."""
        self.hangs: asyncio.Event | None = None
        """Set: a push waits for it."""
        self.pushes = 0
        self.log: list[str] = []
        self.traffic: Counters | None = None
        self.per_read = Counters()
        """What is counted from one reading of the counters to the next ..."""
        self.harm = Counters()
        """... and what comes on top while the last push is in force."""

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
        if self.hangs is not None:
            await self.hangs.wait()
        if self.refuses:
            return Refused()
        if (refused := self.refusal(content)) is not None:
            return refused
        self.loaded = hashlib.md5(content).hexdigest()
        if not self.stuck:
            self.routes = self.markers.get(self.loaded, "")
        return Stored(self.loaded)

    async def probe(self, marker: str, attempts: int) -> DataPath:
        self.log.append("probe")
        await asyncio.sleep(0)
        good = self.sick is None and self.routes == marker
        return DataPath(attempts, attempts if good else 0, "" if good else "0: HTTP 404 instead of 200")

    async def counters(self) -> Counters | None:
        self._answer("counters")
        await asyncio.sleep(0)
        if self.traffic is not None:
            self.traffic += self.per_read + (self.harm if self.pushes else Counters())
        return self.traffic


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
