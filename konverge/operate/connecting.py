"""Reaches proxies with the controller's identity: the real :class:`~konverge.operate.ports.Gateway`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from konverge.errors import Forbidden, KonvergeError, Unavailable, VerificationFailed
from konverge.kong.admin import AdminClient
from konverge.kong.marker import build_request
from konverge.kong.outcomes import PushOutcome
from konverge.kong.probing import ProbeRequest, ProbeTarget, probe
from konverge.kube.client import KubeClient
from konverge.model.fleet import Fleet
from konverge.model.proxy import Mtls, Proxy
from konverge.operate.clock import Clock, utc_now
from konverge.operate.identities import load_controller
from konverge.operate.ports import DataPath, Gateways
from konverge.pki.contexts import build_client_context
from konverge.pki.files import IdentityFiles
from konverge.pki.handshake import Handshake, HandshakeReason, prove


class ProxyGateway:
    """One proxy over its Admin API, with kept connections."""

    def __init__(self, proxy: Proxy, files: IdentityFiles, token: str, clock: Clock) -> None:
        self.proxy = proxy
        self._clock = clock
        self._token = token
        self._context = build_client_context(files.bundle, files.identity)
        self._trusted = tuple(authority.subject for authority in files.bundle.authorities)
        self._admin = AdminClient(
            f"https://{proxy.ip}:{proxy.admin_port}",
            context=self._context,
            server_name=proxy.server_name,
            certificate=files.identity.certificate,
            clock=clock,
        )

    async def identify(self) -> Mtls:
        """Make a handshake and one call; raises where either side refuses the other's identity."""
        shown = await prove(self.proxy.ip, self.proxy.admin_port, self.proxy.server_name, self._context)
        if shown.reason is not HandshakeReason.ACCEPTED:
            raise map_handshake(self.proxy, shown)
        certificate = shown.certificate
        return Mtls(
            subject=certificate.subject if certificate else "",
            issuer=certificate.issuer if certificate else "",
            serial=certificate.serial if certificate else "",
            expires=certificate.not_after if certificate else None,
            protocol=shown.protocol,
            verified_at=self._clock(),
            trusted_authorities=self._trusted,
        )

    async def version(self) -> str:
        """Return Kong's version."""
        return (await self._admin.info()).version

    async def loaded_hash(self) -> str:
        """Return the hash of the configuration that is stored."""
        return (await self._admin.status()).hash

    async def push(self, content: bytes) -> PushOutcome:
        """Send a configuration once."""
        return await self._admin.push(content)

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

    async def close(self) -> None:
        """Close the kept connections."""
        await self._admin.close()


class FleetGateways:
    """The gateways of a fleet; each is made once."""

    def __init__(self, fleet: Fleet, files: IdentityFiles, clock: Clock) -> None:
        self._fleet = fleet
        self._files = files
        self._clock = clock
        self._open: dict[tuple[str, str], ProxyGateway] = {}

    def reach(self, proxy: Proxy) -> ProxyGateway:
        """Return the gateway of a proxy; a pod that came back under another address gets a new one."""
        key = (proxy.name, proxy.ip)
        if key not in self._open:
            self._open[key] = ProxyGateway(proxy, self._files, probe_token(self._fleet), self._clock)
        return self._open[key]

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(gateway.close() for gateway in self._open.values()))
        self._open.clear()


def probe_token(fleet: Fleet) -> str:
    """Return what a probe must carry to be answered by the marker: the fleet's uid, which no client knows."""
    return fleet.uid or f"fleet-{fleet.namespace}-{fleet.name}"


@asynccontextmanager
async def open_gateways(kube: KubeClient, fleet: Fleet, clock: Clock = utc_now) -> AsyncIterator[Gateways]:
    """Open the gateways of a fleet with the controller's identity as it is stored now."""
    gateways = FleetGateways(fleet, await load_controller(kube, fleet, clock), clock)
    try:
        yield gateways
    finally:
        await gateways.close()


def map_handshake(proxy: Proxy, shown: Handshake) -> KonvergeError:
    """Turn a handshake that was not accepted into the failure that says which side refused."""
    text = f"Proxy {proxy.name} at {proxy.ip}:{proxy.admin_port}: {shown.message or shown.reason.value}"
    match shown.reason:
        case HandshakeReason.CLIENT_REFUSED:
            return Forbidden(text, reason="IdentityRefused", hint="reference/proxy-reasons.md#identity-refused")
        case HandshakeReason.SERVER_UNTRUSTED:
            return VerificationFailed(
                text, reason="ServerUntrusted", hint="reference/proxy-reasons.md#server-untrusted"
            )
        case _:
            return Unavailable(text, reason="ProxyUnreachable", hint="reference/proxy-reasons.md#proxy-unreachable")
