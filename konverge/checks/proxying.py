"""Looks at every proxy of a fleet with the controller's identity: handshake, settings, clock."""

from __future__ import annotations

import asyncio
import ssl

from konverge.checks.measuring import read_skew
from konverge.checks.scene import GatewayView
from konverge.errors import KonvergeError
from konverge.kong.admin import READ_TIMEOUT
from konverge.kong.reading import parse_info
from konverge.kong.transport import Channel
from konverge.kube.client import KubeClient
from konverge.model.fleet import Fleet
from konverge.model.proxy import Proxy
from konverge.operate.clock import Clock
from konverge.operate.discovering import discover_proxies
from konverge.operate.identities import load_controller
from konverge.pki.contexts import build_client_context
from konverge.pki.handshake import HandshakeReason, prove

AT_ONCE = 20
LONGEST_ANSWER = 4 * 1024 * 1024
"""Bytes of ``GET /``: the settings of a gateway with many plugins are about 20 KB."""


async def view_gateways(kube: KubeClient, fleet: Fleet, clock: Clock) -> list[GatewayView]:
    """Look at every proxy; one that does not answer has no settings and says why in its handshake."""
    files = await load_controller(kube, fleet, clock)
    context = build_client_context(files.bundle, files.identity)
    slots = asyncio.Semaphore(AT_ONCE)

    async def look(proxy: Proxy) -> GatewayView:
        async with slots:
            return await _view(proxy, context, clock)

    return list(await asyncio.gather(*map(look, await discover_proxies(kube, fleet))))


async def _view(proxy: Proxy, context: ssl.SSLContext, clock: Clock) -> GatewayView:
    shown = await prove(proxy.ip, proxy.admin_port, proxy.server_name, context)
    if shown.reason is not HandshakeReason.ACCEPTED:
        return GatewayView(proxy.name, shown)
    url = f"https://{proxy.ip}:{proxy.admin_port}"
    try:
        async with Channel(url, context, proxy.server_name) as channel:
            answer = await channel.send("GET", "/", timeout=READ_TIMEOUT, keep=LONGEST_ANSWER)
        info = parse_info(answer.body, f"GET {url}/")
    except KonvergeError:
        return GatewayView(proxy.name, shown)
    return GatewayView(proxy.name, shown, info, read_skew(answer.headers, clock()))
