"""A fleet of any size in every state, behind the page, without a cluster."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from konverge.controller.page.board import Board
from konverge.controller.page.serving import add_page
from konverge.controller.page.snapshot import Snapshot
from konverge.decide.assessing import assess_status
from konverge.model.fleet import Fleet, FleetSpec, FleetStatus
from konverge.model.proxy import Mtls, Phase, ProxyStatus

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></li><script>document.title='owned'</script>"


def make_status(number: int, **changes: Any) -> ProxyStatus:
    """A proxy that serves revision 12, with changes."""
    ends = datetime.now(UTC) + timedelta(days=25)
    status = ProxyStatus(
        pod=name_of(number),
        node=f"node-{number % 7}",
        ip=f"10.244.{number // 250}.{number % 250 + 2}",
        version="3.9.1",
        phase=Phase.SERVING,
        desired_revision=12,
        desired_hash="d" * 32,
        loaded_revision=12,
        loaded_hash="d" * 32,
        synced=True,
        traffic_ready=True,
        last_push=datetime.now(UTC) - timedelta(seconds=40),
        push_milliseconds=182,
        reason="Configured",
        message="loaded, read back and probed",
        mtls=Mtls(subject="CN=shop-gateway-admin.gateways.svc", issuer="CN=konverge shop 1", expires=ends),
    )
    return status.model_copy(update=changes)


def name_of(number: int) -> str:
    """The name of a pod."""
    return f"shop-gateway-7d9f4c-{number:03d}"


SICK: dict[str, dict[str, Any]] = {
    "Quarantined": {
        "phase": Phase.QUARANTINED,
        "synced": False,
        "traffic_ready": False,
        "loaded_revision": None,
        "loaded_hash": "",
        "reason": "ProxyUnreachable",
        "message": "The Admin API at 10.244.0.9:8444 does not answer: connection refused",
        "hint": "reference/proxy-reasons.md#proxy-unreachable",
    },
    "Outdated": {"loaded_revision": 11, "loaded_hash": "c" * 32, "synced": False, "reason": "Busy"},
    "Joining": {
        "phase": Phase.IDENTIFIED,
        "synced": False,
        "traffic_ready": False,
        "loaded_revision": None,
        "loaded_hash": "",
        "reason": "Identified",
        "message": "waits for its configuration",
    },
    "Drifted": {
        "loaded_revision": None,
        "loaded_hash": "e" * 32,
        "synced": False,
        "traffic_ready": False,
        "reason": "HashMismatch",
        "message": "something else is loaded",
    },
    "Expiring": {"mtls": Mtls(subject="CN=old", expires=datetime.now(UTC) + timedelta(hours=20))},
}


@dataclass
class MadeFleet:
    """The source of a page; tests change it."""

    proxies: dict[str, ProxyStatus]
    error: str = ""
    spec: FleetSpec = field(default_factory=lambda: FleetSpec(proxy_service="shop", replicas=3))
    last_run: str = ""

    def snapshot(self) -> Snapshot:
        now = datetime.now(UTC)
        status = FleetStatus(current_revision=12, last_good_revision=12, last_run=self.last_run)
        status = assess_status(self.spec, replace_sync(status, now), self.proxies, now)
        fleet = Fleet(name="shop", namespace="gateways", spec=self.spec, status=status)
        return Snapshot(fleet, dict(self.proxies), revision=12, error=self.error)


def replace_sync(status: FleetStatus, now: datetime) -> FleetStatus:
    """A fleet that was synced at the start of this minute: the same for a while, as a fleet at rest is."""
    return status.model_copy(update={"last_sync": now.replace(second=0, microsecond=0)})


def make_fleet(size: int, sick: int = 0) -> MadeFleet:
    """A fleet of which each state of :data:`SICK` has ``sick`` proxies."""
    proxies = {name_of(number): make_status(number) for number in range(size)}
    for offset, changes in enumerate(SICK.values()):
        for turn in range(sick):
            number = (offset * 7 + turn * 41 + 5) % size
            proxies[name_of(number)] = make_status(number, **changes)
    return MadeFleet(proxies)


@contextlib.asynccontextmanager
async def serve_page(source: MadeFleet) -> AsyncIterator[tuple[str, Board]]:
    """The page of a fleet on a free port of loopback."""
    app = web.Application()
    board = add_page(app, source)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        await web.SockSite(runner, listener).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", board
        finally:
            await runner.cleanup()
