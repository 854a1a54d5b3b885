"""Compares the transports against a real HTTP/2 server: nginx, TLS 1.3, client certificates verified.

One nginx process listens on a port per proxy and speaks HTTP/1.1 and HTTP/2 on each. It reads the whole of a pushed
configuration and answers 201 with as many bytes, as Kong does; it keeps nothing, so there is no hash to read back:
``GET /status`` is made all the same and its answer not looked at. Contenders, in turn, over new connections and over
those kept from the push before:

- ``aiohttp``: what Konverge uses: httpx over aiohttp's connections and TLS of our own;
- ``http1``, ``http2``: httpx over its own connections.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson

from konverge.kong.outcomes import Stored
from konverge.operate.connecting import GatewayPool
from konverge.pki.contexts import build_client_context
from pushing.contenders import HEADERS, PATH, cut, gather
from pushing.spending import read_cpu
from pushing.world import FLEET, World, issue, make_document, make_proxy

CONFIGURATION = """
{user}
daemon off; master_process off; worker_rlimit_nofile 8192; pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000; client_max_body_size 0; client_body_buffer_size 16m;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxied;
  fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  upstream answer {{ server unix:{directory}/answer.sock; keepalive 32; }}
  server {{
    listen unix:{directory}/answer.sock; root {directory}; default_type application/json;
    error_page 405 =201 /payload; location = /config {{ return 405; }}
  }}
  server {{
    {listen}
    ssl_certificate {directory}/server.pem; ssl_certificate_key {directory}/server.pem;
    ssl_client_certificate {directory}/ca.pem; ssl_verify_client on; ssl_protocols TLSv1.3;
    ssl_session_tickets off; http2_max_requests 100000;
    location = /status {{ default_type application/json; return 200 '{{"server":{{}}}}'; }}
    location = /config {{
      proxy_pass http://answer; proxy_pass_request_body off; proxy_set_header Content-Length "";
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffers 128 16k; proxy_max_temp_file_size 0;
    }}
  }}
}}
"""


def find_nginx() -> str | None:
    """Return the program, or None where there is none."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@asynccontextmanager
async def serving_nginx(directory: Path, program: str, count: int) -> AsyncIterator[World]:
    """Run nginx with that many ports."""
    files = issue(directory)
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    listen = "\n    ".join(f"listen 127.0.0.1:{port} ssl http2;" for port in ports)
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(CONFIGURATION.format(directory=directory, listen=listen, user=user))
    words = ["-p", str(directory), "-c", str(directory / "nginx.conf")]
    with (directory / "nginx.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(program, *words, stdout=log, stderr=log)
    try:
        await _wait_open(process, directory, ports)
        yield World(directory, files, tuple(make_proxy(number, port) for number, port in enumerate(ports)))
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _wait_open(process: asyncio.subprocess.Process, directory: Path, ports: list[int]) -> None:
    async with asyncio.timeout(30):
        for port in ports:
            while True:
                if process.returncode is not None:
                    raise SystemExit(f"nginx does not start: {(directory / 'nginx.log').read_text()}")
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                break


class Ours:
    """The client of Konverge."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pool = GatewayPool(FLEET, world.files)

    async def push(self, content: bytes) -> int:
        """Push to all; returns how many took it."""

        async def push(proxy: Any) -> bool:
            gateway = self.pool.reach(proxy)
            stored = isinstance(await gateway.push(content), Stored)
            await gateway.loaded_hash()
            return stored

        return await gather(self.world.proxies, push)

    async def close(self) -> None:
        """Close its connections."""
        await self.pool.close()


class Own:
    """httpx over its own connections, one client per proxy, speaking one version of HTTP."""

    def __init__(self, world: World, version: int) -> None:
        self.world = world
        self.version = version
        self.context = build_client_context(world.files.bundle, world.files.identity)
        self.clients: dict[str, httpx.AsyncClient] = {}

    async def push(self, content: bytes) -> int:
        """Push to all; returns how many took it."""

        async def push(proxy: Any) -> bool:
            client, url = self._reach(proxy.name), f"https://127.0.0.1:{proxy.admin_port}"
            options: Any = {"extensions": {"sni_hostname": proxy.server_name}}
            headers = HEADERS | {"Content-Length": str(len(content))}
            async with client.stream("POST", url + PATH, content=cut(content), headers=headers, **options) as answer:
                async for _ in answer.aiter_raw():
                    pass
            assert answer.http_version == ("HTTP/2" if self.version == 2 else "HTTP/1.1")
            await client.get(url + "/status", **options)
            return answer.status_code == 201

        return await gather(self.world.proxies, push)

    def _reach(self, name: str) -> httpx.AsyncClient:
        if name not in self.clients:
            transport = httpx.AsyncHTTPTransport(
                verify=self.context, http1=self.version == 1, http2=self.version == 2,
                limits=httpx.Limits(keepalive_expiry=60.0),
            )  # fmt: skip
            self.clients[name] = httpx.AsyncClient(transport=transport, timeout=60.0)
        return self.clients[name]

    async def close(self) -> None:
        """Close its connections."""
        async with AsyncExitStack() as stack:
            for client in self.clients.values():
                stack.push_async_callback(client.aclose)


TRANSPORTS: dict[str, Callable[[World], Any]] = {
    "aiohttp": Ours,
    "http1": lambda world: Own(world, 1),
    "http2": lambda world: Own(world, 2),
}


async def measure_transports(
    directory: Path, proxies: int, size: int, rounds: int, names: Sequence[str]
) -> dict[str, Any]:
    """Return the seconds and the processor seconds of each contender; why not, where there is no nginx."""
    program = find_nginx()
    if program is None:
        return {"skipped": "there is no nginx on this machine"}
    times: dict[str, list[tuple[float, float]]] = {}
    async with serving_nginx(directory, program, proxies) as world:
        for number in range(rounds + 1):
            for name in names:
                contender = TRANSPORTS[name](world)
                for kind in ("first", "kept"):
                    content = orjson.dumps(make_document(size, len(times) * 100 + number))
                    (directory / "payload").write_bytes(content)
                    found = await _time(contender.push, content, proxies, name)
                    if number:
                        times.setdefault(f"{name} {kind}", []).append(found)
                await contender.close()
    return {"proxies": proxies, "bytes": len(content), "contenders": {n: _describe(t) for n, t in times.items()}}


async def _time(
    push: Callable[[bytes], Awaitable[int]], content: bytes, proxies: int, name: str
) -> tuple[float, float]:
    spent, start = read_cpu(), time.perf_counter()
    taken = await push(content)
    took = time.perf_counter() - start
    if taken != proxies:
        raise SystemExit(f"{name}: {taken} of {proxies} answered 201")
    return took, read_cpu() - spent


def _describe(found: list[tuple[float, float]]) -> dict[str, float]:
    seconds, cpu = zip(*found, strict=True)
    return {"best_s": min(seconds), "median_s": statistics.median(seconds), "cpu_s": min(cpu), "rounds": len(found)}
