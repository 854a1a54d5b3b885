from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from scripted_server import OK, Peer, Script, ScriptedServer

from konverge.errors import UsageError
from konverge.lab.legacy.certificates import KeyPair, create_authority, issue_server
from konverge.lab.load import LoadGenerator, LoadPlan, LoadReport, TrafficClass
from konverge.lab.load.outcomes import ExchangeFailed, Kind
from konverge.lab.load.pooling import Pool
from konverge.lab.load.requests import find_endpoint

POST = [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n", b"hi"]
AUTHORITY = create_authority("lab")
PAIR: KeyPair = issue_server(AUTHORITY, ["shop.test"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    (directory / "ca").write_bytes(AUTHORITY.certificate_pem())
    (directory / "crt").write_bytes(PAIR.certificate_pem())
    (directory / "key").write_bytes(PAIR.key_pem())
    return directory


@contextlib.asynccontextmanager
async def serve_tls(script: Script, files: Path) -> AsyncIterator[tuple[ScriptedServer, list[str]]]:
    names: list[str] = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files / "crt", files / "key")
    context.sni_callback = lambda _socket, name, _context: names.append(name or "")
    scripted = ScriptedServer(script)
    server = await asyncio.start_server(scripted.handle, "127.0.0.1", 0, ssl=context)
    scripted.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted, names
    finally:
        server.close()
        for peer in scripted.peers:
            peer.writer.transport.abort()
        await asyncio.sleep(0)


def plan_for(port: int, files: Path, host: str = "shop.test", *, verify: bool = True) -> LoadPlan:
    item = TrafficClass.model_validate(
        {"name": "k", "kind": "keepalive", "connections": 2, "targets": [{"name": "t", "host": host}]}
    )
    return LoadPlan(
        base_url=f"https://127.0.0.1:{port}",
        rate=100,
        classes=[item],
        verify_tls=verify,
        ca_file=str(files / "ca"),
        timeout=2,
    )


async def run(plan: LoadPlan) -> LoadReport:
    async with LoadGenerator(plan) as load:
        await load.wait_until(lambda snapshot: snapshot.requests.total >= 5, 10)
        return await load.stop()


async def answer(peer: Peer) -> None:
    while await peer.read_request():
        await peer.write(OK)


async def test_the_targets_host_is_the_server_name_and_is_verified(files: Path) -> None:
    async with serve_tls(answer, files) as (server, names):
        report = await run(plan_for(server.port, files))
    assert report.clean
    assert set(names) == {"shop.test"}
    assert report.connections.opened == len(names) >= 2


async def test_a_certificate_for_another_name_is_a_tls_failure_only_where_it_is_verified(files: Path) -> None:
    async with serve_tls(answer, files) as (server, _):
        refused = await run(plan_for(server.port, files, "other.test"))
        accepted = await run(plan_for(server.port, files, "other.test", verify=False))
    assert set(refused.requests.by_kind) == {"tls_failed"}
    assert accepted.clean


async def test_plain_text_on_a_tls_port_is_a_tls_failure(files: Path) -> None:
    async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(speak_plainly, "127.0.0.1", 0)
    report = await run(plan_for(server.sockets[0].getsockname()[1], files))
    server.close()
    assert set(report.requests.by_kind) == {"tls_failed"}


async def test_a_farewell_that_waits_in_the_socket_is_read_before_a_post_is_written(files: Path) -> None:
    said = asyncio.Event()

    async def answer_and_leave(peer: Peer) -> None:
        await peer.read_request()
        await peer.write(OK)
        if peer.number == 0:
            peer.writer.close()
            await peer.writer.wait_closed()
            said.set()
        else:
            await answer(peer)

    async with serve_tls(answer_and_leave, files) as (server, _):
        plan = plan_for(server.port, files)
        pool = Pool(find_endpoint(plan, plan.classes[0].targets[0]), 1, 1.0)
        try:
            await pool.send("POST", POST, 2.0)
            await said.wait()
            _, retried = await pool.send("POST", POST, 2.0)
        except ExchangeFailed as failure:
            pytest.fail(f"{failure.kind}: {failure.message}")
        finally:
            pool.close()
        assert not retried
        assert len(server.peers) == 2


async def test_a_cut_in_the_middle_is_no_clean_end(files: Path) -> None:
    async def cut(peer: Peer) -> None:
        await peer.read_request()
        await peer.write(OK[:-1])
        peer.writer.transport.abort()

    async with serve_tls(cut, files) as (server, _):
        report = await run(plan_for(server.port, files))
    assert set(report.requests.by_kind) <= {str(Kind.TRUNCATED), str(Kind.RESET)}
    assert report.requests.failed == report.requests.total


async def test_a_ca_file_that_is_none_is_named_before_anything_starts(tmp_path: Path) -> None:
    plan = plan_for(1, tmp_path)
    with pytest.raises(UsageError, match="ca_file"):
        await run(plan)
