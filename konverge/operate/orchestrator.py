"""Finds or starts the Prefect server that records the flow runs.

The default is a local, long-lived server on SQLite. Prefect's implicit ephemeral server is switched off: it
loses task runs at exit. Prefect is never imported here; the server is a process of its own.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from konverge.errors import FinalError, Unavailable

DEFAULT_PORT = 4200
START_TIMEOUT = 90.0
"""Seconds: a cold start runs the database migrations, 9 to 19 s on two busy cores."""

STOP_TIMEOUT = 30.0
"""Seconds between SIGTERM and SIGKILL: a server on two busy cores took more than 10 to write what it holds."""

SERVER_SETTINGS = {
    # Ingests task runs in batches; one by one it manages 20 to 40 a second and falls behind a flow.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "0.5",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "DO_NOT_TRACK": "1",
}
CLIENT_SETTINGS = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "DO_NOT_TRACK": "1",
}


_started: dict[int, subprocess.Popen[bytes]] = {}
"""Servers that this process started; they may outlive it, and are waited for when this process stops them."""


@dataclass(frozen=True, slots=True)
class PrefectServer:
    """A server that answers: its API URL, and its process where we started it (pid 0 elsewhere)."""

    url: str
    pid: int = 0

    @property
    def ui(self) -> str:
        """The address of the UI."""
        return self.url.removesuffix("/api")

    def flow_run(self, run_id: str) -> str:
        """Return the address of a flow run's page."""
        return f"{self.ui}/runs/flow-run/{run_id}"


def default_home() -> Path:
    """Return the directory of the local server: database, log and record of its address."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(os.environ.get("KONVERGE_PREFECT_HOME") or f"{state}/konverge/prefect")


async def is_healthy(url: str, timeout: float = 10.0) -> bool:
    """Tell whether a Prefect API answers there."""
    try:
        async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client:
            response = await client.get(f"{url}/health")
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
    return response.status_code == 200


def read_authorization(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the header that signs in, by the variables of Prefect's own clients; none where they are not set."""
    if key := environment.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {key}"}
    if words := environment.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}
    return {}


async def is_deployed(url: str, name: str, timeout: float = 10.0) -> bool:
    """Tell whether a server has a deployment, FLOW/NAME; Unavailable where it gives no answer to that."""
    try:
        headers = read_authorization(os.environ)
        async with httpx.AsyncClient(timeout=timeout, trust_env=False, headers=headers) as client:
            response = await client.get(f"{url}/deployments/name/{name}")
    except httpx.HTTPError as error:
        raise _unreachable(url) from error
    if response.status_code not in (200, 404):
        raise _unreachable(url, f"HTTP {response.status_code}")
    return response.status_code == 200


def _unreachable(url: str, said: str = "") -> Unavailable:
    return Unavailable(
        f"The Prefect server at {url} does not answer{': ' if said else ''}{said}; start it, or unset PREFECT_API_URL"
        " to use the local one",
        reason="PrefectUnreachable",
        hint="reference/errors.md#prefect-unreachable",
    )


async def find_server(home: Path | None = None) -> PrefectServer | None:
    """Return the configured server ($PREFECT_API_URL) or the local one, where it answers."""
    configured = os.environ.get("PREFECT_API_URL")
    if configured:
        return PrefectServer(configured) if await is_healthy(configured) else None
    record = await asyncio.to_thread(_read_record, home or default_home())
    return record if record and await is_healthy(record.url) else None


async def ensure_server(home: Path | None = None, port: int | None = None) -> PrefectServer:
    """Return a server that answers; starts the local one where none is configured.

    Raises Unavailable where $PREFECT_API_URL is set but does not answer: another server is never put in its place.
    """
    found = await find_server(home)
    if found is not None:
        return found
    if os.environ.get("PREFECT_API_URL"):
        raise _unreachable(os.environ["PREFECT_API_URL"])
    return await start_server(home or default_home(), port)


async def start_server(home: Path, port: int | None = None) -> PrefectServer:
    """Start the local server and wait until it answers."""
    chosen = port or _free_port()
    url = f"http://127.0.0.1:{chosen}/api"
    process = await asyncio.to_thread(_spawn, home, chosen, url)
    _started[process.pid] = process
    server = PrefectServer(url, process.pid)
    try:
        async with asyncio.timeout(START_TIMEOUT):
            await _wait_healthy(process, server, home)
    except asyncio.CancelledError:
        await _end(process)
        raise
    except TimeoutError:
        await _end(process)
        raise Unavailable(
            f"The Prefect server did not answer within {START_TIMEOUT:.0f} s; see {home / 'server.log'}",
            reason="PrefectNotStarted",
            hint="reference/errors.md#prefect-not-started",
        ) from None
    await asyncio.to_thread(_write_record, home, server)
    return server


async def _end(process: subprocess.Popen[bytes]) -> None:
    _started.pop(process.pid, None)
    process.terminate()
    try:
        await asyncio.to_thread(process.wait, 10)
    except subprocess.TimeoutExpired:
        process.kill()
        await asyncio.to_thread(process.wait)


async def _wait_healthy(process: subprocess.Popen[bytes], server: PrefectServer, home: Path) -> None:
    while not await is_healthy(server.url):
        if process.poll() is not None:
            raise FinalError(
                f"The Prefect server ended with code {process.returncode}; see {home / 'server.log'}",
                reason="PrefectNotStarted",
                hint="reference/errors.md#prefect-not-started",
            )
        await asyncio.sleep(0.2)


async def stop_server(home: Path | None = None) -> bool:
    """Stop the local server; False where none of ours runs."""
    directory = home or default_home()
    record = await asyncio.to_thread(_read_record, directory)
    if record is None or record.pid == 0 or not _is_ours(record.pid):
        return False
    os.killpg(record.pid, signal.SIGTERM)
    if record.pid in _started:
        await asyncio.to_thread(_reap, _started.pop(record.pid))
    async with asyncio.timeout(STOP_TIMEOUT):
        while _is_ours(record.pid):  # noqa: ASYNC110 - the end of a process that is not our child has no event
            await asyncio.sleep(0.05)
    await asyncio.to_thread((directory / "server.json").unlink, True)
    return True


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for a server of ours that was told to stop; one that does not end in time is ended."""
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def server_environment(home: Path, url: str) -> dict[str, str]:
    """Return the environment of the server's process."""
    return {
        **os.environ,
        **SERVER_SETTINGS,
        **CLIENT_SETTINGS,
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": url,
        "PREFECT_UI_API_URL": url,
    }


def client_environment(server: PrefectServer, home: Path | None = None) -> dict[str, str]:
    """Return the environment of a process that runs flows against this server."""
    return {
        **os.environ,
        **CLIENT_SETTINGS,
        "PREFECT_API_URL": server.url,
        "PREFECT_HOME": str(home or default_home()),
    }


def _spawn(home: Path, port: int, url: str) -> subprocess.Popen[bytes]:
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "server.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=server_environment(home, url),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _free_port() -> int:
    """Return Prefect's usual port, or any free one where it is taken."""
    for candidate in (DEFAULT_PORT, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise FinalError("No port is free on 127.0.0.1", reason="PortTaken", hint="reference/errors.md#port-taken")


def _read_record(home: Path) -> PrefectServer | None:
    try:
        return PrefectServer(**json.loads((home / "server.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write_record(home: Path, server: PrefectServer) -> None:
    (home / "server.json").write_text(json.dumps(asdict(server)))


def _is_ours(pid: int) -> bool:
    """Tell whether the recorded process is still the server and not another one under a reused number."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return b"prefect" in command
