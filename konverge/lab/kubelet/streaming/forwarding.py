"""Port-forward: connections from a client into a pod, as from inside its network namespace."""

from __future__ import annotations

import asyncio
import contextlib

from konverge.lab.kubelet.streaming.pipes import Pipe

BLOCK = 64 * 1024
CONNECT_TIMEOUT = 10.0
LINGER = 1.0
"""Seconds that the client's half may stay open after the pod has closed its own; containerd's number.

A client of the WebSocket protocol cannot close its half at all."""


async def forward(hosts: tuple[str, ...], port: int, pod: str, data: Pipe, error: Pipe) -> None:
    """Connect to the first host that answers and move bytes until both sides have ended.

    ``hosts`` are the pod loopback, then the pod IP: what 127.0.0.1 means inside the pod. A failure is told on the
    error stream, in the runtimes' words.
    """
    try:
        reader, writer = await _connect(hosts, port)
    except OSError as problem:
        text = f"error forwarding port {port} to pod {pod}: failed to connect to localhost:{port} inside it: "
        await _finish(data, error, text + _cause(problem))
        return
    sending = asyncio.create_task(_send(data, writer))
    receiving = asyncio.create_task(_receive(reader, data))
    try:
        await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        # The pod's answer may be long after the client's half ended, but not the other way round.
        await asyncio.wait({receiving} if sending.done() else {sending}, timeout=None if sending.done() else LINGER)
    finally:
        for task in (sending, receiving):
            task.cancel()
        results = await asyncio.gather(sending, receiving, return_exceptions=True)
        writer.close()
    lost = next((item for item in results if isinstance(item, OSError)), None)
    await _finish(data, error, f"error forwarding port {port} to pod {pod}: {lost}" if lost else "")


async def _connect(hosts: tuple[str, ...], port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    problem: OSError = ConnectionRefusedError("no address")
    for host in hosts:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await asyncio.open_connection(host, port)
        except OSError as refused:  # TimeoutError is one
            problem = refused
    raise problem


def _cause(problem: OSError) -> str:
    if isinstance(problem, ConnectionRefusedError):
        return "connect: connection refused"
    return "connect: timed out" if isinstance(problem, TimeoutError) else str(problem)


async def _send(data: Pipe, writer: asyncio.StreamWriter) -> None:
    while block := await data.read():
        writer.write(block)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _receive(reader: asyncio.StreamReader, data: Pipe) -> None:
    while block := await reader.read(BLOCK):
        await data.write(block)
    await data.finish()


async def _finish(data: Pipe, error: Pipe, message: str) -> None:
    with contextlib.suppress(ConnectionError, RuntimeError):
        if message:
            await error.write(message.encode())
        await data.finish()
        await error.finish()
