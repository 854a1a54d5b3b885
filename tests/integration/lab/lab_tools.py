"""Objects and connections that the tests of a whole lab share."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from konverge.kube.resources import Object
from konverge.lab.supervisor.watchdog import MARKER

COMMAND = [sys.executable, "-c", "from konverge.lab.cli import lab_app; lab_app(prog_name='konverge lab')"]


def environment(home: Path) -> dict[str, str]:
    """The environment of a lab command of a test."""
    return {**os.environ, "KONVERGE_LAB_HOME": str(home), "KONVERGE_LAB_NAME": "lab", "COLUMNS": "120"}


def echo(name: str, replicas: int = 2, **service: Any) -> list[Object]:
    """An echo application and its Service."""
    labels = {"app": name}
    container = {
        "name": "echo",
        "image": "konverge/echo:1",
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    balanced = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": labels, "ports": [{"name": "http", "port": 9000, "targetPort": "http"}], **service},
    }
    return [deployment, balanced]


class Http:
    """One keep-alive HTTP/1.1 connection; errors are the socket's own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, address: tuple[str, int]) -> "Http":
        async with asyncio.timeout(5):
            return cls(*await asyncio.open_connection(*address))

    async def get(self, path: str = "/") -> dict[str, Any]:
        """Send one request and return the JSON answer."""
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n".encode())
        async with asyncio.timeout(5):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
            )
            found: dict[str, Any] = orjson.loads(await self.reader.readexactly(length))
        return found

    def close(self) -> None:
        self.writer.close()


async def ask(address: tuple[str, int]) -> str:
    """Return the pod that answers on a fresh connection."""
    connection = await Http.connect(address)
    try:
        return str((await connection.get())["pod"])
    finally:
        connection.close()


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait for something that nothing tells of."""
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110 - polled with a deadline
            await asyncio.sleep(0.05)


def survivors(marker: str) -> list[str]:
    """Return the command lines of the processes that carry a lab's marker; zombies do not count."""
    entry, found = f"{MARKER}={marker}".encode(), []
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            if entry in (place / "environ").read_bytes().split(b"\0"):
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found
