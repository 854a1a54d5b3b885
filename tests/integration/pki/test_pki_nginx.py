"""Debian's nginx with ``ssl_verify_client on`` takes our chains and keys, and refuses what is not ours."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from konverge.pki.authority import Authority, Identity, name_server, request_controller, request_proxies
from konverge.pki.bundle import TrustBundle, build_bundle
from konverge.pki.contexts import build_client_context
from konverge.pki.files import IdentityFiles, assemble_files
from konverge.pki.handshake import Handshake, HandshakeReason, prove
from konverge.pki.keys import KeyType
from konverge.pki.resuming import allows_resumption

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt-get install nginx-light)")
NAME = name_server("gw-1", "adm", "kong")
PORT = 8444
CONFIGURATION = """
daemon off;
pid {prefix}/nginx.pid;
error_log stderr notice;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {prefix}/body;
  proxy_temp_path {prefix}/proxy;
  fastcgi_temp_path {prefix}/fastcgi;
  uwsgi_temp_path {prefix}/uwsgi;
  scgi_temp_path {prefix}/scgi;
  server {{
    listen {address}:{port} ssl;
    ssl_certificate {prefix}/tls.crt;
    ssl_certificate_key {prefix}/tls.key;
    ssl_client_certificate {prefix}/client-ca.pem;
    ssl_verify_client on;
    ssl_verify_depth 2;
    ssl_protocols {protocols};
    ssl_session_tickets off;
    ssl_session_cache off;
    location / {{ return 200 "in\\n"; }}
  }}
}}
"""


@asynccontextmanager
async def run_nginx(files: IdentityFiles, prefix: Path, protocols: str = "TLSv1.3") -> AsyncIterator[str]:
    """Serve with an identity in the foreground until the block ends; yields the address."""
    # A loopback address of its own: no other process listens on its ports.
    address = f"127.{random.randrange(251, 255)}.{random.randrange(256)}.{random.randrange(1, 255)}"
    for name, content in files.data.items():
        (prefix / name).touch(mode=0o600)
        (prefix / name).write_bytes(content)
    text = CONFIGURATION.format(prefix=prefix, address=address, port=PORT, protocols=protocols)
    user = "user root;\n" if os.getuid() == 0 else ""
    (prefix / "nginx.conf").write_text(user + text)
    command = [str(NGINX), "-p", str(prefix), "-c", str(prefix / "nginx.conf"), "-e", "stderr"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        await _await_worker(process)
        yield address
    finally:
        process.terminate()
        await process.communicate()


async def _await_worker(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(60):
        while b"start worker process " not in said:
            line = await process.stderr.readline()
            assert line, f"nginx ended: {said.decode()}"
            said += line


@dataclass(frozen=True)
class World:
    """An authority whose leaves are valid now, with one key type for all of it."""

    now: datetime
    key_type: KeyType
    authority: Authority

    @classmethod
    def create(cls, key_type: KeyType) -> World:
        now = datetime.now(UTC)
        return cls(now, key_type, Authority.create("edge", now, key_type=key_type))

    @property
    def trust(self) -> TrustBundle:
        return build_bundle(self.authority.identity.chain, self.now)

    def client(self, at: datetime | None = None, days: float = 1) -> Identity:
        lifetime = timedelta(days=days)
        request = request_controller("edge")
        return self.authority.issue(request, at or self.now, lifetime=lifetime, key_type=self.key_type)

    def server(self, service: str = "adm", at: datetime | None = None) -> Identity:
        request = request_proxies(service, "kong")
        return self.authority.issue(request, at or self.now, key_type=self.key_type)


async def ask(address: str, trust: TrustBundle, identity: Identity | None, name: str = NAME) -> Handshake:
    return await prove(address, PORT, name, build_client_context(trust, identity), path="/", timeout=30)


@pytest.mark.parametrize("key_type", list(KeyType))
async def test_the_right_client_is_let_in_and_wrong_ones_are_refused(tmp_path: Path, key_type: KeyType) -> None:
    world = World.create(key_type)
    stranger = World.create(key_type)
    # An authority that is old enough to have signed what expired long ago.
    early = world.now - timedelta(days=3)
    old = Authority.create("edge", early, key_type=key_type)
    trust = build_bundle((*world.authority.identity.chain, *old.identity.chain), world.now)
    expired = World(world.now, key_type, old).client(early, days=1)
    wrong = {
        "none": None,
        "other authority": stranger.client(),
        "expired": expired,
        "not yet valid": World(world.now, key_type, old).client(world.now + timedelta(days=1)),
        "server certificate": world.server(),
    }
    async with run_nginx(assemble_files(world.server(), trust, world.now), tmp_path) as address:
        for good in (world.client(), World(world.now, key_type, old).client()):
            shown = await ask(address, trust, good)
            assert (shown.reason, shown.status, shown.protocol) == (HandshakeReason.ACCEPTED, 200, "TLSv1.3")
        for what, identity in wrong.items():
            shown = await ask(address, trust, identity)
            assert (what, shown.reason) == (what, HandshakeReason.CLIENT_REFUSED)
        assert not await allows_resumption(address, PORT, NAME, build_client_context(trust, world.client()), path="/")


@pytest.mark.parametrize("key_type", list(KeyType))
async def test_we_refuse_a_server_that_is_not_the_one_we_asked_for(tmp_path: Path, key_type: KeyType) -> None:
    world, stranger = World.create(key_type), World.create(key_type)
    client, files = world.client(), assemble_files(world.server(), world.trust, world.now)
    async with run_nginx(files, tmp_path) as address:
        assert (await ask(address, world.trust, client)).accepted
        for trust, name in ((stranger.trust, NAME), (world.trust, name_server("gw-1", "other", "kong"))):
            assert (await ask(address, trust, client, name)).reason is HandshakeReason.SERVER_UNTRUSTED


async def test_we_refuse_a_server_that_shows_a_client_certificate_or_an_old_protocol(tmp_path: Path) -> None:
    world = World.create(KeyType.ECDSA)
    masked = assemble_files(world.client(), world.trust, world.now)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with run_nginx(masked, tmp_path / "a") as address:
        assert (await ask(address, world.trust, world.client())).reason is HandshakeReason.SERVER_UNTRUSTED
    files = assemble_files(world.server(), world.trust, world.now)
    async with run_nginx(files, tmp_path / "b", "TLSv1.2") as address:
        assert (await ask(address, world.trust, world.client())).reason is HandshakeReason.TLS_FAILED
