"""The stand-in as a container, and the ``kong`` command next to it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from kong_lab import HOST, SERVER, Authority, client_context, configuration
from typer.testing import CliRunner

from konverge.lab.kong.command import main as kong

pytestmark = pytest.mark.lab


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


class Container:
    """A process with KONG_* in its environment."""

    def __init__(self, directory: Path) -> None:
        self.ports = {name: free_port() for name in ("admin", "status", "proxy", "control")}
        self.server_ca = Authority.make(directory, "server-ca")
        self.client_ca = Authority.make(directory, "client-ca", "clients")
        self.server = self.server_ca.issue("server", SERVER)
        self.client = self.client_ca.issue("client")
        self.bundle = directory / "bundle.pem"
        self.bundle.write_bytes(self.client_ca.path().read_bytes())
        self.prefix = directory / "prefix"
        self.process: asyncio.subprocess.Process | None = None
        self.env = dict(os.environ) | {
            "KONG_DATABASE": "off",
            "KONG_PREFIX": str(self.prefix),
            "KONG_ADMIN_LISTEN": f"{HOST}:{self.ports['admin']} http2 ssl",
            "KONG_STATUS_LISTEN": f"{HOST}:{self.ports['status']}",
            "KONG_PROXY_LISTEN": f"{HOST}:{self.ports['proxy']}",
            "KONG_ADMIN_SSL_CERT": str(self.server[0]),
            "KONG_ADMIN_SSL_CERT_KEY": str(self.server[1]),
            "KONG_NGINX_ADMIN_SSL_VERIFY_CLIENT": "on",
            "KONG_NGINX_ADMIN_SSL_CLIENT_CERTIFICATE": str(self.bundle),
            "KONVERGE_LAB_KONG_INSTANT": "on",
            "KONVERGE_LAB_KONG_CONTROL": f"{HOST}:{self.ports['control']}",
        }

    async def ask(self, path: str = "/status") -> httpx.Response:
        context = client_context(self.server_ca.path(), self.client)
        async with httpx.AsyncClient(verify=context) as client:
            return await client.get(f"https://{HOST}:{self.ports['admin']}{path}")

    async def until_up(self) -> None:
        async with asyncio.timeout(20):
            while True:
                try:
                    await self.ask()
                    return
                except httpx.TransportError:
                    await asyncio.sleep(0.05)

    async def command(self, *arguments: str) -> int:
        return await asyncio.to_thread(kong, list(arguments), self.env)


@asynccontextmanager
async def started(directory: Path) -> AsyncIterator[Container]:
    container = Container(directory)
    container.process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "konverge.lab.kong", env=container.env
    )
    try:
        await container.until_up()
        yield container
    finally:
        if container.process.returncode is None:
            container.process.kill()
        await container.process.wait()


async def test_reload_tests_first_and_then_takes_the_new_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with started(tmp_path) as container:
        assert (await container.ask()).status_code == 200
        container.bundle.write_text("garbage")
        assert await container.command("reload") == 1
        assert "no certificate or crl found" in capsys.readouterr().err
        assert (await container.ask()).status_code == 200
        container.bundle.write_bytes(Authority.make(tmp_path, "new-ca", "new").path().read_bytes())
        assert await container.command("reload") == 0
        assert capsys.readouterr().out == "Kong reloaded\n"
        async with asyncio.timeout(10):
            while (await container.ask()).status_code != 400:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("server.key", None, "admin_ssl_cert_key: failed loading certificate"),
        ("server.crt", "", "admin_ssl_cert: failed loading certificate"),
        ("bundle.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n", "bad end line"),
    ],
)
async def test_what_the_test_finds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str | None, message: str
) -> None:
    container = Container(tmp_path)
    container.prefix.joinpath("pids").mkdir(parents=True)
    container.prefix.joinpath("pids", "nginx.pid").write_text(str(os.getpid()))
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    # The pid is that of this process: were the files good, it would get SIGHUP and end.
    assert await container.command("reload") == 1
    assert message in capsys.readouterr().err


async def test_key_mismatch_and_unnoticed_junk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    container = Container(tmp_path)
    container.server_ca.issue("other", SERVER)
    (tmp_path / "server.key").write_bytes((tmp_path / "other.key").read_bytes())
    assert await container.command("check") == 1
    assert "key values mismatch" in capsys.readouterr().err
    container.server_ca.issue("server", SERVER)
    with container.bundle.open("a") as bundle:
        bundle.write("junk\n")
    assert await container.command("check") == 0, "junk after a good CA is not noticed"


async def test_lifecycle_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    container = Container(tmp_path)
    assert await container.command("health") == 1
    assert await container.command("start") == 0
    try:
        await container.until_up()
        assert await container.command("health") == 0
        assert await container.command("start") == 1, "it runs already"
        assert await container.command("drain") == 0
        async with httpx.AsyncClient(verify=False) as client:
            ready = await client.get(f"http://{HOST}:{container.ports['status']}/status/ready")
        assert ready.json() == {"message": "draining"}
        assert await container.command("restart") == 0
        await container.until_up()
        assert await container.command("quit", "--wait=0", "--timeout=5") == 0
        assert await container.command("health") == 1
        container.bundle.write_text("garbage")
        assert await container.command("restart") == 1, "with broken files it stays down"
        out = capsys.readouterr().out
        assert "Kong started" in out
        assert "Kong stopped (gracefully)" in out
    finally:
        await container.command("stop")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
async def test_signals_end_it_and_the_configuration_stays(tmp_path: Path, number: signal.Signals) -> None:
    async with started(tmp_path) as container:
        context = client_context(container.server_ca.path(), container.client)
        async with httpx.AsyncClient(verify=context) as client:
            response = await client.post(
                f"https://{HOST}:{container.ports['admin']}/config",
                content=json.dumps(configuration(1)),
                headers={"Content-Type": "application/yaml"},
            )
        assert response.status_code == 201
        assert container.process is not None
        container.process.send_signal(number)
        assert await asyncio.wait_for(container.process.wait(), 10) == 0
        stored = json.loads((container.prefix / "dbless.lmdb" / "data.json").read_text())
        assert set(stored["entities"]) == {"services", "routes"}
        assert not (container.prefix / "pids" / "nginx.pid").exists()


async def test_control_endpoint(tmp_path: Path) -> None:
    async with started(tmp_path) as container, httpx.AsyncClient(verify=False) as client:
        base = f"http://{HOST}:{container.ports['control']}"
        assert (await client.put(f"{base}/faults", json={"nope": 1})).status_code == 400
        assert (await client.put(f"{base}/faults", json={"delay": 0.0, "busy": 3})).json()["busy"] == 3
        assert (await client.post(f"{base}/orphan-lock")).status_code == 204
        assert (await client.get(f"{base}/state")).json()["hash"] == "0" * 32


def test_start_without_good_settings(tmp_path: Path) -> None:
    import subprocess

    env = dict(os.environ) | {"KONG_DATABASE": "cassandra"}
    done = subprocess.run(
        [sys.executable, "-m", "konverge.lab.kong"], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "KONG_DATABASE" in done.stderr


def test_flags_are_those_of_the_cli() -> None:
    import typer

    from konverge.lab.kong.cli import kong as verb

    app = typer.Typer()
    app.command()(verb)
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for flag in ("--admin-tls", "--client-ca", "--instant", "--control"):
        assert flag in shown.output
