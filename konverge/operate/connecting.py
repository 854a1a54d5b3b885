"""Reaches proxies with the controller's identity: the real :class:`~konverge.operate.ports.Gateway`.

A :class:`GatewayPool` lives as long as its owner, the controller for hours: connections are kept per proxy, so that a
push needs no handshake, and the identity can be replaced while pushes are under way. A run of a flow may outlive the
identity that it began with: where that is refused, the stored one is read, and the call made once more.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

from konverge.errors import Busy, Forbidden, Invalid, KonvergeError, NotFound, Unavailable, VerificationFailed
from konverge.kong.admin import AdminClient, Meeting, StatusClient
from konverge.kong.counting import parse_counters
from konverge.kong.database.calling import AdminCaller
from konverge.kong.database.marking import owner_tag
from konverge.kong.database.reading import read_stored_hash
from konverge.kong.exchanging import Peer
from konverge.kong.failures import LostConnection
from konverge.kong.loading import LoadLock
from konverge.kong.marker import build_request
from konverge.kong.outcomes import IdentityRefused, PushOutcome, Unreachable, UnreachableCause
from konverge.kong.probing import ProbeRequest, ProbeTarget, probe
from konverge.kong.reading import GatewayStatus
from konverge.kube.client import KubeClient
from konverge.model.counters import Counters
from konverge.model.fleet import Fleet
from konverge.model.proxy import ZERO_HASH, Mtls, Proxy
from konverge.operate.clock import Clock, utc_now
from konverge.operate.identities import load_controller
from konverge.operate.ports import DataPath, Gateways
from konverge.pki.contexts import build_client_context
from konverge.pki.files import IdentityFiles
from konverge.pki.inspecting import Certificate, inspect_der

log = logging.getLogger(__name__)

_UNTRUSTED = (UnreachableCause.SERVER_UNTRUSTED, UnreachableCause.SERVER_NAME, UnreachableCause.SERVER_EXPIRED)

TOLD_SECONDS = 0.5
"""How long what a proxy said when it was met counts as its answer to the next question."""
RELOAD_SECONDS = 2.0
"""The stored identity is read at most this often, however many proxies refuse the one in force."""
COUNTERS_TIMEOUT = 10.0
"""Seconds for the metrics of one proxy; it is judged without them where they take longer."""

Result = TypeVar("Result")
Load = Callable[[], Awaitable[IdentityFiles]]
"""Reads the controller's identity as it is stored now."""


@dataclass(frozen=True, slots=True)
class _Identity:
    """What all proxies are dialled with: one TLS context for all of them, each under its own server name."""

    files: IdentityFiles
    context: ssl.SSLContext = field(repr=False)
    authorities: tuple[str, ...]

    @classmethod
    def of(cls, files: IdentityFiles) -> _Identity:
        subjects = tuple(authority.subject for authority in files.bundle.authorities)
        return cls(files, build_client_context(files.bundle, files.identity), subjects)


class ProxyGateway:
    """One proxy over its Admin API, with kept connections; made by a :class:`GatewayPool`."""

    def __init__(
        self,
        proxy: Proxy,
        identity: _Identity,
        token: str,
        clock: Clock,
        owner: str = "",
        renew: Callable[[_Identity], Awaitable[bool]] | None = None,
    ) -> None:
        self.proxy = proxy
        self._renew = renew
        self._owner = owner
        self._shares_database = False
        self._clock = clock
        self._token = token
        self._lock = LoadLock()
        self._identity = identity
        self._admin = self._dial()
        self._shown: tuple[Peer, Certificate] | None = None
        self._version = ""
        self._told: tuple[float, GatewayStatus] | None = None
        """What :meth:`identify` was told, and when."""

    async def identify(self) -> Mtls:
        """Return who answers one call, over a verified connection: a kept one where there is one, else a new one.

        Whatever is kept was verified by a handshake with the identity in force. Forbidden with reason IdentityRefused
        where the proxy does not accept us, VerificationFailed with ServerUntrusted where we do not accept the proxy,
        Unavailable with ProxyUnreachable where it does not answer.
        """
        try:
            meeting = await self._call(AdminClient.meet)
        except KonvergeError as error:
            raise map_refusal(self.proxy, error) from error
        identity = self._identity
        if not meeting.reused:
            self._version = ""
        self._told = (time.monotonic(), meeting.status)
        return self._describe(meeting, identity)

    async def version(self) -> str:
        """Return Kong's version; asked once per connection that :meth:`identify` met."""
        if not self._version:
            self._version = (await self._call(AdminClient.info)).version
        return self._version

    async def loaded_hash(self) -> str:
        """Return the hash of the configuration that is stored; with a database, the one that it says it holds.

        Right after :meth:`identify` it is what that was told: one call says both.
        """
        told, self._told = self._told, None
        fresh = told is not None and time.monotonic() - told[0] < TOLD_SECONDS
        status = told[1] if told is not None and fresh else await self._call(AdminClient.status)
        self._shares_database = status.database
        if not status.database:
            return status.hash
        return await read_stored_hash(self.database(), self._owner) or ZERO_HASH

    async def push(self, content: bytes) -> PushOutcome:
        """Send a configuration once; Busy where the proxy has a database: a sync has to write it there."""
        if self._shares_database:
            raise Busy(
                f"The database of {self.proxy.name} does not hold the revision yet: a sync has to write it there",
                reason="SyncUnderWay",
                hint="reference/proxy-reasons.md#sync-under-way",
            )
        self._told = None
        identity = self._identity
        outcome = await self._admin.push(content)
        if _is_refused(outcome) and await self._take_stored(identity):
            # What was refused in the handshake was not read: it is sent for the first time.
            outcome = await self._admin.push(content)
        return outcome

    async def probe(self, marker: str, attempts: int) -> DataPath:
        """Ask the data path for the marker on fresh connections."""
        request = build_request(self._token)
        target = ProbeTarget(self.proxy.ip, self.proxy.proxy_port)
        wanted = ProbeRequest(request.path, request.headers, 200, marker.encode())
        result = await probe(target, wanted, connections=attempts)
        if not marker:
            # A global plugin answers in place of the marker: that the gateway answers at all is what is left.
            passed = sum(connection.status > 0 for connection in result.results)
        else:
            passed = sum(connection.ok for connection in result.results)
        total = len(result.results)
        return DataPath(total, passed, "" if passed == total else result.describe())

    async def counters(self) -> Counters | None:
        """Return the counters of the traffic, from the Status API; None where the proxy does not export them."""
        async with StatusClient(f"http://{self.proxy.ip}:{self.proxy.status_port}") as status:
            text = await status.metrics(timeout=COUNTERS_TIMEOUT)
        return await asyncio.to_thread(parse_counters, text)

    def database(self) -> AdminCaller:
        """Return the way to the entities of a proxy that has a database."""
        return AdminCaller(lambda: self._admin)

    async def use(self, identity: _Identity) -> None:
        """Dial with another identity from now on; what is under way ends with the old one."""
        former, self._identity = self._admin, identity
        self._admin, self._version = self._dial(), ""
        await former.retire()

    async def close(self) -> None:
        """Close the kept connections."""
        await self._admin.close()

    async def retire(self) -> None:
        """Close the kept connections as soon as nothing is under way."""
        await self._admin.retire()

    async def _call(self, ask: Callable[[AdminClient], Awaitable[Result]]) -> Result:
        """Ask, and once more where one side refused the other and another identity is stored by now."""
        identity = self._identity
        try:
            return await ask(self._admin)
        except KonvergeError as error:
            refused = isinstance(error, Forbidden) or _is_untrusted(error)
            if not (refused and await self._take_stored(identity)):
                raise
        return await ask(self._admin)

    async def _take_stored(self, refused: _Identity) -> bool:
        return self._renew is not None and await self._renew(refused)

    def _dial(self) -> AdminClient:
        return AdminClient(
            f"https://{self.proxy.ip}:{self.proxy.admin_port}",
            context=self._identity.context,
            server_name=self.proxy.server_name,
            certificate=self._identity.files.identity.certificate,
            clock=self._clock,
            lock=self._lock,
        )

    def _describe(self, meeting: Meeting, identity: _Identity) -> Mtls:
        peer = meeting.peer
        assert peer is not None, "an https connection has a peer"
        if self._shown is None or self._shown[0] != peer:
            self._shown = (peer, inspect_der(peer.certificate, f"the certificate of {self.proxy.name}"))
        certificate, now = self._shown[1], self._clock()
        if now > certificate.not_after:
            # OpenSSL looks at a handshake only, and a kept connection may outlive its certificate.
            raise VerificationFailed(
                f"Proxy {self.proxy.name} at {self.proxy.ip}:{self.proxy.admin_port}: "
                f"its certificate expired at {certificate.not_after:%FT%TZ}",
                reason="ServerUntrusted",
                hint="reference/proxy-reasons.md#server-untrusted",
            )
        return Mtls(
            subject=certificate.subject,
            issuer=certificate.issuer,
            serial=certificate.serial,
            starts=certificate.not_before,
            expires=certificate.not_after,
            protocol=peer.protocol,
            verified_at=now,
            trusted_authorities=identity.authorities,
        )


class GatewayPool:
    """The gateways of a fleet, each with its kept connections; an async context manager that may live for hours.

    ``files`` is the identity that is shown to proxies; :meth:`use` replaces it. ``load`` reads the stored one for
    an owner that nobody tells of its change: it is called when a proxy and we refuse each other. A connection is
    closed when it was idle for 60 s, when its proxy left (:meth:`retain`) and with the pool.
    """

    def __init__(self, fleet: Fleet, files: IdentityFiles, clock: Clock = utc_now, load: Load | None = None) -> None:
        self._load = load
        self._loading = asyncio.Lock()
        self._load_at = 0.0
        self._token = probe_token(fleet)
        self._owner = owner_tag(fleet.namespace, fleet.name)
        self._clock = clock
        self._identity = _Identity.of(files)
        self._open: dict[tuple[str, ...], ProxyGateway] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def reach(self, proxy: Proxy) -> ProxyGateway:
        """Return the gateway of a proxy; a pod that came back, under the same address or another, gets a new one."""
        key = _key(proxy)
        gateway = self._open.get(key)
        if gateway is None:
            gateway = self._open[key] = ProxyGateway(
                proxy, self._identity, self._token, self._clock, self._owner, self._renew
            )
        gateway.proxy = proxy
        return gateway

    async def use(self, files: IdentityFiles) -> None:
        """Show this identity and believe this bundle from now on; nothing happens where both are those in force.

        Requests under way end with the former identity, and no connection of it serves a request afterwards.
        """
        if files.data == self._identity.files.data:
            return
        self._identity = _Identity.of(files)
        await asyncio.gather(*(gateway.use(self._identity) for gateway in self._open.values()))

    async def _renew(self, refused: _Identity) -> bool:
        """Take up the stored identity where it is not the refused one; True where another one is in force now."""
        async with self._loading:
            if self._identity is not refused:
                return True
            if self._load is None or time.monotonic() < self._load_at:
                return False
            self._load_at = time.monotonic() + RELOAD_SECONDS
            try:
                files = await self._load()
            except KonvergeError as error:
                log.warning("the stored identity of the controller is not read: %s", error.message)
                return False
            await self.use(files)
            return self._identity is not refused

    async def retain(self, proxies: Iterable[Proxy]) -> None:
        """Forget the gateways of all other proxies; each is closed when nothing is under way on it."""
        wanted = {_key(proxy) for proxy in proxies}
        left = [self._open.pop(key) for key in self._open.keys() - wanted]
        await asyncio.gather(*(gateway.retire() for gateway in left))

    async def close(self) -> None:
        """Close all connections."""
        gateways, self._open = list(self._open.values()), {}
        await asyncio.gather(*(gateway.close() for gateway in gateways))


def _key(proxy: Proxy) -> tuple[str, ...]:
    return (proxy.namespace, proxy.name, proxy.uid, proxy.ip, str(proxy.admin_port), proxy.server_name)


def probe_token(fleet: Fleet) -> str:
    """Return what a probe must carry to be answered by the marker: the fleet's uid, which no client knows."""
    return fleet.uid or f"fleet-{fleet.namespace}-{fleet.name}"


@asynccontextmanager
async def open_gateways(kube: KubeClient, fleet: Fleet, clock: Clock = utc_now) -> AsyncIterator[Gateways]:
    """Open the gateways of a fleet with the controller's identity as it is stored, for one verb."""

    async def load() -> IdentityFiles:
        return await load_controller(kube, fleet, clock)

    async with GatewayPool(fleet, await load(), clock, load) as gateways:
        yield gateways


def _is_untrusted(error: KonvergeError) -> bool:
    return isinstance(error, LostConnection) and error.cause in _UNTRUSTED


def _is_refused(outcome: PushOutcome) -> bool:
    """Whether a push ended in the handshake because one side does not know the other."""
    if isinstance(outcome, Unreachable):
        return outcome.cause in _UNTRUSTED
    return isinstance(outcome, IdentityRefused)


def map_refusal(proxy: Proxy, error: KonvergeError) -> KonvergeError:
    """Turn a call that failed into the failure that says which side refused the other, or that nobody answers."""
    text = f"Proxy {proxy.name} at {proxy.ip}:{proxy.admin_port}: {error.message}"
    if isinstance(error, Forbidden):
        return Forbidden(text, reason="IdentityRefused", hint="reference/proxy-reasons.md#identity-refused")
    if _is_untrusted(error):
        return VerificationFailed(text, reason="ServerUntrusted", hint="reference/proxy-reasons.md#server-untrusted")
    if isinstance(error, Unavailable):
        reason = "ProxyUnreachable" if isinstance(error, LostConnection) else error.reason
        return Unavailable(text, reason=reason, hint="reference/proxy-reasons.md#proxy-unreachable")
    if isinstance(error, (NotFound, Invalid)):
        return Invalid(text, reason="NotAnAdminApi", hint="reference/proxy-reasons.md#not-an-admin-api")
    return error
