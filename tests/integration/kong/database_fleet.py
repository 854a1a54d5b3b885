"""Three stand-in processes on one database, and what syncs them: in this process, or in one that can be killed.

``python database_fleet.py FILE MARKER PROXIES`` syncs the configuration in FILE; PROXIES is HOST:ADMIN:PROXY,...
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from konverge.errors import Unavailable
from konverge.kong.admin import AdminClient
from konverge.kong.database import AdminCaller
from konverge.kong.marker import add_marker, build_request
from konverge.kong.probing import ProbeRequest, ProbeTarget, probe
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import Mtls, Proxy
from konverge.model.revision import Revision
from konverge.operate.databases import DatabaseReport, sync_database
from konverge.operate.ports import DataPath

HOST = f"127.251.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
"""An address of this process alone: on 127.0.0.1 somebody else may take a port between finding and using it."""
TOKEN = "0123456789"
STARTING = 40.0
"""Seconds that a gateway may take to start on a busy machine."""
FLEET = Fleet(name="shop", namespace="default", spec=FleetSpec(proxy_service="s", mode="db"))


class PlainGateway:
    """A proxy without TLS: the entities, the marker, and who it says it is."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._admin = AdminClient(f"http://{proxy.ip}:{proxy.admin_port}")

    async def identify(self) -> Mtls:
        await self._admin.status()
        return Mtls(subject=self.proxy.name)

    async def version(self) -> str:
        return (await self._admin.info()).version

    def database(self) -> AdminCaller:
        return AdminCaller(lambda: self._admin)

    async def probe(self, marker: str, attempts: int) -> DataPath:
        asked = build_request(TOKEN)
        wanted = ProbeRequest(asked.path, asked.headers, 200, marker.encode())
        result = await probe(ProbeTarget(self.proxy.ip, self.proxy.proxy_port), wanted, connections=attempts)
        passed = sum(connection.ok for connection in result.results)
        return DataPath(attempts, passed, "" if passed == attempts else result.describe())

    async def close(self) -> None:
        await self._admin.close()


class PlainGateways:
    def __init__(self, proxies: list[Proxy]) -> None:
        self.proxies = proxies
        self._open = {proxy.name: PlainGateway(proxy) for proxy in proxies}

    def reach(self, proxy: Proxy) -> Any:
        return self._open[proxy.name]

    async def close(self) -> None:
        await asyncio.gather(*(gateway.close() for gateway in self._open.values()))


def parse_proxies(text: str) -> list[Proxy]:
    pairs = [pair.split(":") for pair in text.split(",")]
    return [
        Proxy(name=f"gw-{n}", namespace="default", ip=host, admin_port=int(admin), proxy_port=int(proxy))
        for n, (host, admin, proxy) in enumerate(pairs)
    ]


async def sync_once(proxies: list[Proxy], revision: Revision, **options: Any) -> DatabaseReport:
    gateways: Any = PlainGateways(proxies)
    kube: Any = None
    try:
        return await sync_database(kube, FLEET, gateways, revision, proxies, **options)
    finally:
        await gateways.close()


def build(number: int, port: int, routes: int = 3, **more: Any) -> Revision:
    """Routes /r0, /r1, ... to a backend behind an upstream; upstream, service and port belong to the revision."""
    shapes = [
        {"name": f"r{n}", "paths": [f"/r{n}"], "plugins": [{"name": "correlation-id"}], **more} for n in range(routes)
    ]
    document = {
        "_format_version": "3.0",
        "upstreams": [{"name": f"up-{number}", "targets": [{"target": f"{HOST}:{port}"}]}],
        "services": [{"name": f"s-{number}", "host": f"up-{number}", "routes": shapes}],
    }
    marked = add_marker(document, fleet="shop", revision=f"m-{number}", token=TOKEN, flavor="traditional")
    return Revision(number=number, content=orjson.dumps(marked), marker=f"m-{number}")


@dataclass
class Container:
    """One stand-in process."""

    process: asyncio.subprocess.Process
    proxy: Proxy
    control: Path

    async def set_faults(self, **faults: Any) -> None:
        transport = httpx.AsyncHTTPTransport(uds=str(self.control))
        async with httpx.AsyncClient(transport=transport, timeout=STARTING) as client:
            assert (await client.put("http://control/faults", json=faults)).status_code == 200


async def start(directory: Path, name: str, ports: tuple[int, int], frequency: float) -> Container:
    control = directory / f"{name}.sock"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "konverge.lab.kong", f"--admin={HOST}:{ports[0]}", f"--proxy={HOST}:{ports[1]}",
        f"--database={directory / 'kong.sqlite'}", f"--update-frequency={frequency}", f"--control={control}",
        "--instant",
    )  # fmt: skip
    proxy = Proxy(name=name, namespace="default", ip=HOST, admin_port=ports[0], proxy_port=ports[1])
    return Container(process, proxy, control)


@asynccontextmanager
async def run_fleet(directory: Path, ports: list[int], frequency: float = 0.1) -> AsyncIterator[list[Container]]:
    """Run as many nodes as there are pairs of ports; they are killed at the end."""
    pairs = list(zip(ports[::2], ports[1::2], strict=True))
    containers = [await start(directory, f"gw-{n}", pair, frequency) for n, pair in enumerate(pairs)]
    try:
        await asyncio.gather(*map(wait_until_up, containers))
        yield containers
    finally:
        for container in containers:
            if container.process.returncode is None:
                container.process.kill()
            await container.process.wait()


async def wait_until_up(container: Container) -> None:
    gateway = PlainGateway(container.proxy)
    try:
        async with asyncio.timeout(STARTING):
            while True:
                assert container.process.returncode is None, "the gateway ended while starting"
                try:
                    await gateway.identify()
                    return
                except Unavailable:
                    await asyncio.sleep(0.05)
    finally:
        await gateway.close()


async def main(content: bytes, marker: str, proxies: str) -> None:
    revision = Revision(number=0, content=content, marker=marker)
    report = await sync_once(parse_proxies(proxies), revision)
    sys.exit(0 if report.ok else 1)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).read_bytes(), sys.argv[2], sys.argv[3]))
