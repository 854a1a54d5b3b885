"""Stand-in gateways as processes, with mutual TLS and switchable faults, and the fleet that they make up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from konverge.errors import KonvergeError
from konverge.kong.admin import StatusClient
from konverge.kong.marker import add_marker
from konverge.model.fleet import Fleet, FleetSpec, Rollout
from konverge.model.proxy import Proxy
from konverge.model.revision import Revision
from konverge.operate.connecting import GatewayPool, probe_token
from konverge.operate.revisions import store_revision
from konverge.operate.syncing import SyncReport, sync_fleet
from konverge.pki.authority import Authority, Identity, name_server, request_controller, request_proxies
from konverge.pki.bundle import TrustBundle, read_bundle
from konverge.pki.files import IdentityFiles, assemble_files
from tests.unit.operate.fake_kube import FakeKube

SERVICE, NAMESPACE = "shop-gateway-admin", "default"
STARTING = 60.0
LISTENERS = ("status", "proxy", "admin-tls", "control")


@dataclass
class StandIn:
    """One gateway process. ``ports`` are by listener; they stay the same over restarts."""

    name: str
    directory: Path
    ports: dict[str, int]
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        listeners = [f"--{name}=127.0.0.1:{port}" for name, port in self.ports.items()]
        files = {"cert": "tls.crt", "key": "tls.key", "client-ca": "client-ca.pem"}
        identity = [f"--{flag}={self.directory / name}" for flag, name in files.items()]
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "konverge.lab.kong",
            *listeners,
            *identity,
            f"--prefix={self.directory / 'prefix'}",
            "--instant",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def until_up(self) -> None:
        async with StatusClient(f"http://127.0.0.1:{self.ports['status']}") as client, asyncio.timeout(STARTING):
            while True:
                assert self.process is not None
                assert self.process.returncode is None, f"{self.name} ended while it started"
                with contextlib.suppress(KonvergeError):
                    await client.status()
                    return
                await asyncio.sleep(0.05)

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def restart(self) -> None:
        """Kill it and start it on the same ports and the same prefix: it comes back with what it had stored."""
        await self.kill()
        await self.start()
        await self.until_up()

    async def control(self, method: str, path: str, body: Any = None) -> Any:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            answer = await client.request(method, f"http://127.0.0.1:{self.ports['control']}{path}", json=body)
            answer.raise_for_status()
            return answer.json() if answer.content else None

    async def fault(self, **faults: Any) -> None:
        await self.control("PUT", "/faults", faults)

    async def hash(self) -> str:
        return str((await self.control("GET", "/state"))["hash"])

    @property
    def proxy(self) -> Proxy:
        return Proxy(
            name=self.name,
            namespace=NAMESPACE,
            ip="127.0.0.1",
            uid=f"uid-{self.name}",
            server_name=name_server(self.name, SERVICE, NAMESPACE),
            ready=True,
            admin_port=self.ports["admin-tls"],
            status_port=self.ports["status"],
            proxy_port=self.ports["proxy"],
        )


def find_ports(count: int) -> Iterator[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        yield from [one.getsockname()[1] for one in sockets]


@dataclass
class Gang:
    """A fleet of stand-ins on an old revision, and the new one that is to reach them."""

    directory: Path
    members: list[StandIn]
    kube: FakeKube = field(default_factory=FakeKube)
    rollout: Rollout = field(default_factory=lambda: Rollout(canary=1, wave_size=50))
    number: int = 0
    files: IdentityFiles | None = None
    authority: Authority | None = None
    client: Identity | None = None

    @property
    def fleet(self) -> Fleet:
        spec = FleetSpec(proxy_service="s", rollout=self.rollout)
        return Fleet(name="shop", namespace=NAMESPACE, uid="0123456789abcdef", spec=spec)

    @property
    def proxies(self) -> list[Proxy]:
        return [member.proxy for member in self.members]

    def trust(self) -> None:
        """Make one authority and identities of it for everybody."""
        now = datetime.now(UTC)
        self.authority = Authority.create("edge", now)
        bundle = read_bundle(self.authority.pem, now)
        self.client = self.authority.issue(request_controller("shop"), now)
        self.files = assemble_files(self.client, bundle, now)
        server = self.authority.issue(request_proxies(SERVICE, NAMESPACE), now)
        for member in self.members:
            write_identity(member.directory, server, bundle, now)

    async def revise(self, routes: Sequence[dict[str, Any]] = (), plugins: Sequence[dict[str, Any]] = ()) -> Revision:
        """Store the next revision; it differs from the one before."""
        self.number += 1
        service = {
            "name": "s",
            "host": "127.0.0.1",
            "port": 9,
            "routes": [*routes, {"name": f"r{self.number}", "paths": ["/"]}],
        }
        marked = add_marker(
            {"_format_version": "3.0", "services": [service], **({"plugins": list(plugins)} if plugins else {})},
            fleet="shop",
            revision=f"m{self.number}",
            token=probe_token(self.fleet),
            flavor="traditional_compatible",
        )
        draft = Revision(0, json.dumps(marked, sort_keys=True).encode(), marker=f"m{self.number}")
        return await store_revision(self.kube, self.fleet, draft)

    async def sync(self, revision: Revision, **options: Any) -> SyncReport:
        assert self.files is not None
        async with GatewayPool(self.fleet, options.pop("files", self.files)) as gateways:
            return await sync_fleet(self.kube, self.fleet, gateways, revision, self.proxies, **options)

    async def hashes(self) -> list[str]:
        return [await member.hash() for member in self.members]

    async def calm(self) -> None:
        """Take every fault away; who is down comes back."""
        for member in self.members:
            if member.process is None or member.process.returncode is not None:
                await member.restart()
            await member.fault(**NO_FAULTS)


NO_FAULTS: dict[str, Any] = {
    "delay": 0.0,
    "delay_on": "admin",
    "refuse_on": "",
    "reset_after": -1,
    "truncate_after": -1,
    "busy": 0,
    "stored_500": 0,
    "exiting_503": 0,
    "wrong_hash": 0,
    "hang": 0,
    "hang_on": "admin",
    "load_extra": 0.0,
    "router_extra": 0.0,
    "clock_offset": 0.0,
    "lmdb_full": 0,
}


def write_identity(directory: Path, server: Identity, clients: TrustBundle, now: datetime) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    for name, content in assemble_files(server, clients, now).data.items():
        path = directory / name
        path.touch(mode=0o600)
        path.write_bytes(content)


def issue_expired(gang: Gang) -> IdentityFiles:
    """An identity of ours that expired yesterday."""
    assert gang.authority is not None
    now = datetime.now(UTC)
    long_ago = now - timedelta(days=2)
    past = Authority.create("edge", long_ago)
    expired = past.issue(request_controller("shop"), long_ago, lifetime=timedelta(days=1))
    return IdentityFiles(expired, read_bundle(gang.authority.pem, now))


def issue_foreign(gang: Gang) -> IdentityFiles:
    """An identity of an authority that the proxies do not know."""
    assert gang.authority is not None
    now = datetime.now(UTC)
    foreign = Authority.create("somebody else", now).issue(request_controller("shop"), now)
    return IdentityFiles(foreign, read_bundle(gang.authority.pem, now))


@contextlib.asynccontextmanager
async def open_gang(directory: Path, count: int) -> AsyncIterator[Gang]:
    """Start stand-ins; they are killed with the block."""
    ports = list(find_ports(count * len(LISTENERS)))
    members = []
    for number in range(count):
        mine = ports[number * len(LISTENERS) : (number + 1) * len(LISTENERS)]
        members.append(StandIn(f"p{number}", directory / f"p{number}", dict(zip(LISTENERS, mine, strict=True))))
    gang = Gang(directory, members)
    gang.trust()
    try:
        for member in members:
            await member.start()
        for member in members:
            await member.until_up()
        yield gang
    finally:
        await asyncio.gather(*(member.kill() for member in members))
