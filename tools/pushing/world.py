"""The servers of one measurement, the certificates of both sides, the configuration that is pushed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import Proxy
from konverge.pki.authority import Authority, name_server, request_controller, request_proxies
from konverge.pki.bundle import read_bundle
from konverge.pki.files import CONTROLLER_BUNDLE_FILE, IdentityFiles, assemble_files

FLEET = Fleet(name="bench", namespace="bench", uid="bench", spec=FleetSpec(proxy_service="bench"))
SERVICE = "bench-admin"


@dataclass(frozen=True)
class World:
    """Where the servers are and what they are dialled with; ``directory`` holds the same for curl."""

    directory: Path
    files: IdentityFiles
    proxies: tuple[Proxy, ...]
    pid: int = 0
    """The process of the servers."""


def issue(directory: Path) -> IdentityFiles:
    """Write the certificates of both sides and return those of the client."""
    now = datetime.now(UTC)
    authority = Authority.create("bench", now)
    server = authority.issue(request_proxies(SERVICE, "bench", ip_addresses=["127.0.0.1"]), now)
    client = authority.issue(request_controller("bench"), now)
    (directory / "ca.pem").write_bytes(authority.pem)
    (directory / "server.pem").write_bytes(server.chain_pem + server.key.to_pem())
    (directory / "client.pem").write_bytes(client.chain_pem)
    (directory / "client.key").write_bytes(client.key.to_pem())
    return assemble_files(client, read_bundle(authority.pem, now), now, CONTROLLER_BUNDLE_FILE)


@asynccontextmanager
async def serving(directory: Path, count: int, answer: str, load: float = 0.0) -> AsyncIterator[World]:
    """Run ``count`` servers in a process of their own."""
    files = issue(directory)
    program = Path(__file__).with_name("serving.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, directory, str(count), "--answer", answer, "--load", str(load),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**20,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ports = json.loads(await process.stdout.readline())
        proxies = tuple(make_proxy(number, port) for number, port in enumerate(ports))
        yield World(directory, files, proxies, process.pid)
    finally:
        process.stdin.close()
        await process.wait()


def make_proxy(number: int, port: int) -> Proxy:
    """Return a server as a proxy."""
    name = f"gw-{number}"
    return Proxy(
        name=name, namespace="bench", ip="127.0.0.1", uid=name, ready=True, admin_port=port,
        server_name=name_server(name, SERVICE, "bench"),
    )  # fmt: skip


def make_document(size: int, turn: int) -> dict[str, object]:
    """Return a configuration of about ``size`` bytes; another one for each turn."""
    services: list[dict[str, object]] = []
    per_route = len(orjson.dumps(_service(10_000, turn))) + 1
    services.extend(_service(number, turn) for number in range(max(size // per_route, 1)))
    return {"_format_version": "3.0", "services": services}


def _service(number: int, turn: int) -> dict[str, object]:
    name = f"team-{number % 40}.service-{number:06d}"
    tags = [f"k8s-name:{name}", "k8s-namespace:bench", "k8s-kind:Ingress", f"turn:{turn:06d}"]
    route = {"name": f"{name}.r", "paths": [f"/{name}"], "protocols": ["http", "https"], "tags": tags}
    return {
        "name": name, "host": f"{name}.bench.80.svc", "port": 80, "protocol": "http",
        "connect_timeout": 60000, "read_timeout": 60000, "write_timeout": 60000, "retries": 5,
        "tags": tags, "routes": [route],
    }  # fmt: skip
