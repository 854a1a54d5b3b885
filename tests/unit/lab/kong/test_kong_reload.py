"""Reloads: generations of workers, trust, sessions, kept connections, shutdown."""

from __future__ import annotations

import asyncio
import datetime
import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from kong_lab import HOST, SERVER, Authority, Backend, Session, client_context, configuration, get, post, running

from konverge.lab.kong.listen import Listen
from konverge.lab.kong.settings import Timing


class Files:
    """A server certificate, a client CA and its bundle."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server_ca = Authority.make(directory, "server-ca")
        self.client_ca = Authority.make(directory, "client-ca", "clients")
        self.bundle = directory / "bundle.pem"
        self.bundle.write_bytes(self.client_ca.path().read_bytes())
        self.server = self.server_ca.issue("server", SERVER)

    def settings(self, **more: Any) -> dict[str, Any]:
        given = {
            "tls": True,
            "admin_cert": self.server[0],
            "admin_key": self.server[1],
            "client_ca": self.bundle,
            "verify_client": "on",
        }
        return given | more

    def context(self, pair: tuple[Path, Path] | None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        return client_context(self.server_ca.path(), pair, version)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def reload(node: Any) -> None:
    before = {id(context) for context in node._generations}
    node.hang_up()
    async with asyncio.timeout(5):
        while before & {id(c) for c in node._generations if not c.draining}:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def ask(session: Session) -> tuple[int, bool]:
    return await asyncio.to_thread(session.ask)


async def test_trust_is_read_at_reload_only(files: Files) -> None:
    other = Authority.make(files.directory, "other-ca", "others")
    pair = other.issue("newcomer")
    async with running(**files.settings()) as node:
        port = node.port("admin", tls=True)
        assert (await ask(Session(port, files.context(pair))))[0] == 400
        files.bundle.write_bytes(files.client_ca.path().read_bytes() + other.path().read_bytes())
        assert (await ask(Session(port, files.context(pair))))[0] == 400
        await reload(node)
        assert (await ask(Session(port, files.context(pair))))[0] == 200


async def test_broken_files_keep_the_old_set(files: Files) -> None:
    pair = files.client_ca.issue("client")
    async with running(**files.settings()) as node:
        files.bundle.write_text("garbage")
        node.hang_up()
        await asyncio.sleep(0.1)
        assert (await ask(Session(node.port("admin", tls=True), files.context(pair))))[0] == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_resumed_session_outlives_its_certificate(files: Files, version: ssl.TLSVersion) -> None:
    pair = files.client_ca.issue("client", lifetime=datetime.timedelta(hours=1))
    async with running(**files.settings()) as node:
        port = node.port("admin", tls=True)
        session = Session(port, files.context(pair, version))
        assert await ask(session) == (200, False)
        node.faults.clock_offset = 7200.0
        assert await ask(session) == (200, True), "expired, but resumed"
        assert (await ask(Session(port, files.context(pair, version))))[0] == 400, "expired, full handshake"
        await reload(node)
        assert await ask(session) == (200, True), "sessions survive a reload"
        files.server_ca.issue("server", SERVER)
        await reload(node)
        assert await ask(session) == (400, False), "a new server certificate ends them"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_new_ca_of_the_same_name_lets_old_sessions_in(files: Files, version: ssl.TLSVersion) -> None:
    pair = files.client_ca.issue("client")
    async with running(**files.settings()) as node:
        port = node.port("admin", tls=True)
        session = Session(port, files.context(pair, version))
        assert await ask(session) == (200, False)
        twin = Authority.make(files.directory, "twin", "clients")
        files.bundle.write_bytes(twin.path().read_bytes())
        await reload(node)
        assert await ask(session) == (200, True)
        assert (await ask(Session(port, files.context(pair, version))))[0] == 400
        stranger = Authority.make(files.directory, "stranger", "strangers")
        files.bundle.write_bytes(stranger.path().read_bytes())
        await reload(node)
        assert await ask(session) == (400, False), "another name ends them"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_resumption_needs_both_switches_off(files: Files, version: ssl.TLSVersion) -> None:
    pair = files.client_ca.issue("client")
    async with running(**files.settings(session_tickets=False)) as node:
        session = Session(node.port("admin", tls=True), files.context(pair, version))
        assert [await ask(session), await ask(session)] == [(200, False), (200, True)]
    async with running(**files.settings(session_tickets=False, session_cache=False)) as node:
        session = Session(node.port("admin", tls=True), files.context(pair, version))
        assert [await ask(session), await ask(session)] == [(200, False), (200, False)]


async def test_a_refused_session_stays_refused(files: Files) -> None:
    pair = Authority.make(files.directory, "wrong").issue("client")
    async with running(**files.settings()) as node:
        session = Session(node.port("admin", tls=True), files.context(pair, ssl.TLSVersion.TLSv1_2))
        assert [(await ask(session))[0], (await ask(session))[0]] == [400, 400]


async def test_kept_connections_are_cut_once_and_requests_finish() -> None:
    release = asyncio.Event()
    arrived = asyncio.Event()

    async def answer(_m: str, _t: str, _f: dict[str, str], _b: bytes, writer: asyncio.StreamWriter) -> bool:
        arrived.set()
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return True

    async with Backend(answer) as backend, running() as node:
        await post(node, configuration(backend.port))
        idle_reader, idle_writer = await asyncio.open_connection(HOST, node.port("admin"))
        idle_writer.write(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"Connection: keep-alive" in await idle_reader.readuntil(b"\r\n\r\n")
        busy_reader, busy_writer = await asyncio.open_connection(HOST, node.port("proxy"))
        busy_writer.write(b"GET /r HTTP/1.1\r\nHost: x\r\n\r\n")
        await arrived.wait()
        await reload(node)
        async with asyncio.timeout(5):
            await idle_reader.read()
        assert idle_reader.at_eof(), "idle: FIN at the switch"
        release.set()
        async with asyncio.timeout(5):
            rest = await busy_reader.read()
        assert rest.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close" in rest
        for writer in (idle_writer, busy_writer):
            writer.close()


async def test_a_request_that_has_begun_keeps_the_old_trust(files: Files) -> None:
    pair = files.client_ca.issue("client")
    async with running(**files.settings()) as node:
        port = node.port("admin", tls=True)
        reader, writer = await asyncio.open_connection(HOST, port, ssl=files.context(pair), server_hostname=HOST)
        writer.write(b"GET /status HTTP/1.1\r\nHo")
        await writer.drain()
        await asyncio.to_thread(Session(port, files.context(pair)).ask)
        files.bundle.write_bytes(Authority.make(files.directory, "new", "new").path().read_bytes())
        await reload(node)
        assert (await ask(Session(port, files.context(pair))))[0] == 400
        writer.write(b"st: x\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_body_that_ends_on_a_draining_worker_is_not_applied() -> None:
    text = json.dumps(configuration(1)).encode()
    async with running() as node:
        reader, writer = await asyncio.open_connection(HOST, node.port("admin"))
        head = f"POST /config HTTP/1.1\r\nHost: x\r\nContent-Type: text/yaml\r\nContent-Length: {len(text)}\r\n\r\n"
        writer.write(head.encode() + text[:20])
        await get(node, "admin", "/status")
        await reload(node)
        writer.write(text[20:])
        answer = await reader.read()
        assert b"Kong currently exiting" in answer
        assert node.snapshot.empty
        writer.close()


async def test_http2_connections_get_goaway(files: Files) -> None:
    pair = files.client_ca.issue("client")
    async with running(**files.settings()) as node:
        port = node.port("admin", tls=True)
        async with httpx.AsyncClient(http2=True, verify=files.context(pair)) as client:
            first = await client.get(f"https://{HOST}:{port}/status")
            assert (first.http_version, first.status_code) == ("HTTP/2", 200)
            await reload(node)
            assert (await client.get(f"https://{HOST}:{port}/status")).status_code == 200
        assert node.stats.accepted >= 2


@pytest.mark.parametrize("until", [3600.0, 0.05])
async def test_ready_is_refused_while_routers_are_built(until: float) -> None:
    timing = Timing.instant()
    timing.reload_unready = (0.0, until)
    async with running(timing=timing) as node:
        await post(node, configuration(1))
        node.draining = True
        await reload(node)
        assert (await post(node, configuration(2))).status_code == 201
        if until > 1:
            ready = await get(node, "status", "/status/ready")
            message = "router builds not yet complete, router ready in 0 of 2 workers"
            assert (ready.status_code, ready.json()["message"]) == (503, message)
            return
        async with asyncio.timeout(10):
            while (await get(node, "status", "/status/ready")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_plain_http_on_the_tls_port(files: Files) -> None:
    async with running(**files.settings()) as node:
        response = await get(node, "admin", "/status")
        assert response.status_code == 200
        async with httpx.AsyncClient(verify=False) as client:
            wrong = await client.get(f"http://{HOST}:{node.port('admin', tls=True)}/status")
        assert wrong.status_code == 400
        assert "The plain HTTP request was sent to HTTPS port" in wrong.text


async def test_quitting_finishes_what_is_under_way() -> None:
    release = asyncio.Event()
    arrived = asyncio.Event()

    async def answer(_m: str, _t: str, _f: dict[str, str], _b: bytes, writer: asyncio.StreamWriter) -> bool:
        arrived.set()
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return True

    async with Backend(answer) as backend, running() as node:
        await post(node, configuration(backend.port))
        request = asyncio.create_task(get(node, "proxy", "/r"))
        await arrived.wait()
        port = node.port("proxy")
        quitting = asyncio.create_task(node.quit())
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)
        release.set()
        assert (await request).text == "ok"
        await quitting
        assert node.finished.is_set()


async def test_killing_resets() -> None:
    async with running(admin=[Listen(HOST, 0)]) as node:
        reader, writer = await asyncio.open_connection(HOST, node.port("admin"))
        await get(node, "admin", "/status")
        node.kill()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
