"""A gateway that answers as a test scripts it, down to the byte, over plain TCP or TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

CLOSE = object()
"""Close the connection instead of answering."""


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    number: int
    """How many requests came over this connection before, this one included."""


Answering = Callable[[Seen], "bytes | object | Awaitable[bytes | object]"]


def answer(status: int, body: bytes = b"", kind: str = "application/json", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", f"Content-Type: {kind}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class ScriptedGateway:
    """Calls ``respond`` for each request; what it returns is written as it is."""

    respond: Answering
    read_body: bool = True
    continues: bool = True
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    tls: ssl.SSLContext | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        connection, number = self.connections, 0
        try:
            while True:
                number += 1
                seen = await self._read(reader, writer, connection, number)
                self.seen.append(seen)
                result = self.respond(seen)
                if isinstance(result, Awaitable):
                    result = await result
                if result is CLOSE:
                    return
                assert isinstance(result, bytes)
                writer.write(result)
                await writer.drain()
                if b"onnection: close" in result.partition(b"\r\n\r\n")[0]:
                    return
        except (OSError, EOFError):
            return
        finally:
            writer.close()

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int, number: int
    ) -> Seen:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        body = b""
        if self.read_body:
            if self.continues and "100-continue" in headers.get("expect", ""):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Seen(method, path, headers, body, connection, number)


@pytest.fixture
async def gateways() -> AsyncIterator[Callable[..., Awaitable[ScriptedGateway]]]:
    """Return a function that starts scripted gateways; they are stopped at the end."""
    started: list[ScriptedGateway] = []

    async def start(respond: Answering, **options: object) -> ScriptedGateway:
        gateway = ScriptedGateway(respond, **options)  # type: ignore[arg-type]
        await gateway.start()
        started.append(gateway)
        return gateway

    yield start
    for gateway in started:
        await gateway.stop()
