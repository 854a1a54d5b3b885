"""Why a POST on a kept connection may fail at a reload, and only that: what Debian's nginx does with its connections.

An idle kept connection is closed at once, without a word before (``ngx_close_idle_connections``). Between that close
and the moment in which the client's machine learns of it the client may write; nobody ever reads what it wrote (RFC
9112, 9.3.1: a connection can be closed at any time). Every other request is answered.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx-light)")
CONFIGURATION = """
daemon off;
pid {prefix}/nginx.pid;
error_log stderr notice;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log {prefix}/access.log;
  client_body_temp_path {prefix}/body;
  proxy_temp_path {prefix}/proxy;
  fastcgi_temp_path {prefix}/fastcgi;
  uwsgi_temp_path {prefix}/uwsgi;
  scgi_temp_path {prefix}/scgi;
  server {{
    listen {address}:8000;
    location / {{ return 200 "in\\n"; }}
  }}
}}
"""
GET = b"GET /kept HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /lost HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"


@dataclass
class Nginx:
    """An nginx in the foreground."""

    process: asyncio.subprocess.Process
    address: str
    prefix: Path

    async def until(self, words: bytes) -> None:
        assert self.process.stderr is not None
        async with asyncio.timeout(60):
            while words not in (line := await self.process.stderr.readline()):
                assert line, "nginx ended"

    async def reload(self) -> None:
        """HUP, and wait until the old worker has gone."""
        self.process.send_signal(signal.SIGHUP)
        await self.until(b"exited with code 0")

    def requests(self) -> list[str]:
        return [line.split('"')[1] for line in (self.prefix / "access.log").read_text().splitlines()]


@pytest.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[Nginx]:
    address = f"127.{random.randrange(251, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
    user = "user root;\n" if os.getuid() == 0 else ""
    (tmp_path / "nginx.conf").write_text(user + CONFIGURATION.format(prefix=tmp_path, address=address))
    command = [str(NGINX), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    running = Nginx(process, address, tmp_path)
    try:
        await running.until(b"start worker process ")
        yield running
    finally:
        process.terminate()
        await process.communicate()


@asynccontextmanager
async def kept(nginx: Nginx) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that has served one request and is kept."""
    reader, writer = await asyncio.open_connection(nginx.address, 8000)
    try:
        writer.write(GET)
        answer = await reader.readuntil(b"in\n")
        assert b"Connection: keep-alive" in answer
        yield reader, writer
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_an_idle_kept_connection_is_closed_without_a_word(nginx: Nginx) -> None:
    async with kept(nginx) as (reader, _):
        await nginx.reload()
        assert await asyncio.wait_for(reader.read(), 30) == b"", "nothing but the end"


async def test_what_is_written_after_that_is_read_by_nobody(nginx: Nginx) -> None:
    """The client has not looked yet: as far as it knows the connection is as good as before."""
    async with kept(nginx) as (reader, writer):
        await nginx.reload()
        writer.write(POST)
        try:
            answer = await asyncio.wait_for(reader.read(), 30)
        except ConnectionError:
            answer = b""
        assert answer == b""
    assert nginx.requests() == ["GET /kept HTTP/1.1"], "no worker has seen the request: it had no effect"


async def test_a_request_that_has_begun_is_answered_by_the_old_worker(nginx: Nginx) -> None:
    async with kept(nginx) as (reader, writer):
        writer.write(POST[:20])
        await writer.drain()
        # The worker reads in the order in which things happen; a second connection shows that it has read this far.
        async with kept(nginx):
            pass
        nginx.process.send_signal(signal.SIGHUP)
        await nginx.until(b"gracefully shutting down")
        writer.write(POST[20:])
        answer = await asyncio.wait_for(reader.read(), 30)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"Connection: close" in answer
