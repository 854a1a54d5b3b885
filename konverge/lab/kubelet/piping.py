"""Pipes between the kubelet and the processes it starts."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any

from konverge.lab.kubelet.processes import Launch, Launcher, Process

DRAIN_TIMEOUT = 1.0
"""Seconds of silence after the end of a process until its output counts as complete."""
OUTPUT_LIMIT = 10 * 1024
"""Bytes of output kept of a probe or hook, as the kubelet does for exec probes."""


class PipeReader(asyncio.Protocol):
    """Hands what a process writes to ``take``; ``ended`` is set when every writer has closed."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self.ended = asyncio.Event()
        self._moved = False
        self.transport: asyncio.ReadTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport, so that the reader can be paused and closed."""
        assert isinstance(transport, asyncio.ReadTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Pass bytes on."""
        self._moved = True
        self._take(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """End: EOF, or EIO of a terminal whose other side is gone."""
        self.ended.set()

    async def drain(self) -> None:
        """Wait for the rest, but not for a background child that keeps the pipe open; then stop reading.

        While bytes arrive, or wait for a slow reader of ours, the rest has not come yet.
        """
        while not self.ended.is_set():
            self._moved = False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), DRAIN_TIMEOUT)
            if not self._moved and self.transport is not None and self.transport.is_reading():
                break
        self.close()

    def close(self) -> None:
        """Stop reading."""
        if self.transport is not None:
            self.transport.close()


async def read_pipe(descriptor: int, take: Callable[[bytes], None]) -> PipeReader:
    """Start reading from a descriptor, which is owned by the reader from now on."""
    reader = PipeReader(take)
    await asyncio.get_running_loop().connect_read_pipe(lambda: reader, os.fdopen(descriptor, "rb", buffering=0))
    return reader


async def write_pipe(descriptor: int) -> asyncio.StreamWriter:
    """Return a writer that owns the descriptor."""
    loop = asyncio.get_running_loop()
    file: Any = os.fdopen(descriptor, "wb", buffering=0)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, file)
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def start_with_output(
    launcher: Launcher, launch: Launch, take: Callable[[str, bytes], None]
) -> tuple[Process, tuple[PipeReader, PipeReader]]:
    """Start a process without input; ``take(stream, data)`` gets what it writes to stdout and stderr."""
    pairs = [os.pipe(), os.pipe()]
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        process = await launcher.start(launch, null, pairs[0][1], pairs[1][1])
    except BaseException:
        for reading, _ in pairs:
            os.close(reading)
        raise
    finally:
        for descriptor in (null, pairs[0][1], pairs[1][1]):
            os.close(descriptor)
    stdout = await read_pipe(pairs[0][0], lambda data: take("stdout", data))
    stderr = await read_pipe(pairs[1][0], lambda data: take("stderr", data))
    return process, (stdout, stderr)


async def run_command(launcher: Launcher, launch: Launch, timeout: float | None) -> tuple[int, bytes]:
    """Run a command to its end; return its exit code and the first 10 KiB of output.

    TimeoutError after ``timeout`` seconds; the command is killed then, and on cancellation.
    """
    output = bytearray()

    def take(_stream: str, data: bytes) -> None:
        output.extend(data[: OUTPUT_LIMIT - len(output)])

    process, readers = await start_with_output(launcher, launch, take)
    try:
        async with asyncio.timeout(timeout):
            code = await process.wait()
            for reader in readers:
                await reader.drain()
    finally:
        if process.returncode is None:
            process.kill()
        for reader in readers:
            reader.close()
    return code, bytes(output)
