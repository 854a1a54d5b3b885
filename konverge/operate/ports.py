"""What the verbs ask of a proxy; the real one dials the Admin API, tests put a fake in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from konverge.kong.database.calling import Caller
from konverge.kong.outcomes import PushOutcome
from konverge.model.counters import Counters
from konverge.model.proxy import Mtls, Proxy


@dataclass(frozen=True, slots=True)
class DataPath:
    """What fresh connections to the proxy listener answered: how many carried the expected marker."""

    probes: int
    passed: int
    failure: str = ""

    @property
    def ok(self) -> bool:
        """Whether every probe passed."""
        return self.probes > 0 and self.passed == self.probes


class Gateway(Protocol):
    """One proxy of the fleet, over mutual TLS. Every method raises KonvergeError when the proxy is out of reach."""

    @property
    def proxy(self) -> Proxy:
        """The proxy that is dialled."""

    async def identify(self) -> Mtls:
        """Make a handshake and one call; Forbidden where either side refuses the other's identity."""

    async def version(self) -> str:
        """Return Kong's version."""

    async def loaded_hash(self) -> str:
        """Return the hash of the configuration that is stored."""

    async def push(self, content: bytes) -> PushOutcome:
        """Send a configuration once."""

    async def probe(self, marker: str, attempts: int) -> DataPath:
        """Ask the data path for the marker on fresh connections."""

    async def counters(self) -> Counters | None:
        """Return the counters of the traffic since the proxy started; None where it does not export them."""

    def database(self) -> Caller:
        """Return the way to the entities of a proxy that has a database; nothing is sent yet."""


class Gateways(Protocol):
    """Connects to proxies with the controller's identity; connections are kept while it is open."""

    def reach(self, proxy: Proxy) -> Gateway:
        """Return the gateway of a proxy; nothing is sent yet."""
