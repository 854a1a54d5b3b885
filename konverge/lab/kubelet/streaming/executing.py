"""Running a command inside a container with its streams at a client's end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import struct
import termios
from typing import Any

from konverge.errors import KonvergeError
from konverge.lab.kubelet.containers import Container
from konverge.lab.kubelet.piping import PipeReader, read_pipe, write_pipe
from konverge.lab.kubelet.processes import Process, exit_code
from konverge.lab.kubelet.streaming.pipes import ExecOptions, ExecPipes, Pipe

GONE = (ConnectionError, RuntimeError)
"""What writing to a client that has left raises."""
QUEUED = 64
"""Blocks of output that wait for a slow client before the process is made to wait."""


def success() -> dict[str, Any]:
    """Return the Status of a command that ended with 0."""
    return {"metadata": {}, "status": "Success"}


def failure(message: str, *, code: int | None = None) -> dict[str, Any]:
    """Return the Status of a command that failed: with its exit code, or one that never ran."""
    status: dict[str, Any] = {"metadata": {}, "status": "Failure", "message": message}
    if code is None:
        return {**status, "reason": "InternalError", "code": 500}
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return {**status, "reason": "NonZeroExitCode", "details": {"causes": causes}}


async def execute(container: Container, options: ExecOptions, pipes: ExecPipes) -> None:
    """Run the command to its end and tell the outcome on the error stream.

    A client that leaves only loses the streams: the command goes on until it ends by itself or with its container.
    """
    try:
        code = await _run(container, options, pipes)
        status = success() if code == 0 else failure(f"command terminated with exit code {code}", code=code)
    except KonvergeError as error:
        status = failure(f"error executing command in container: {error.message}")
    with contextlib.suppress(*GONE):
        await _tell(pipes, status)
    for pipe in (pipes.stdout, pipes.stderr, pipes.error):
        if pipe is not None:
            with contextlib.suppress(*GONE):
                await pipe.finish()


async def _tell(pipes: ExecPipes, status: dict[str, Any]) -> None:
    if pipes.structured:
        await pipes.error.write(json.dumps(status).encode())
    elif status["status"] != "Success":
        await pipes.error.write(status["message"].encode())


async def _run(container: Container, options: ExecOptions, pipes: ExecPipes) -> int:
    process, terminal = await (_start_terminal if options.tty else _start)(container, options, pipes)
    container.companions.add(process)
    try:
        return exit_code(await process.wait())
    finally:
        container.companions.discard(process)
        await terminal.finish()


class Attachment:
    """The local ends of a command's streams, and the tasks that move the bytes."""

    def __init__(self) -> None:
        self.readers: list[PipeReader] = []
        self._outputs: list[asyncio.Task[None]] = []
        self._inputs: list[asyncio.Task[None]] = []
        self._descriptors: list[int] = []

    async def output(self, descriptor: int, pipe: Pipe | None) -> None:
        """Send what the command writes to ``pipe``; without one it is read and dropped."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()

        def take(data: bytes) -> None:
            queue.put_nowait(data)
            if queue.qsize() > QUEUED and reader.transport is not None:
                reader.transport.pause_reading()

        reader = await read_pipe(descriptor, take)
        self.readers.append(reader)
        self._outputs.append(asyncio.create_task(self._forward(reader, queue, pipe)))

    async def _forward(self, reader: PipeReader, queue: asyncio.Queue[bytes | None], pipe: Pipe | None) -> None:
        ended = asyncio.create_task(reader.ended.wait())
        ended.add_done_callback(lambda _: queue.put_nowait(None))
        while (data := await queue.get()) is not None:
            if pipe is not None:
                try:
                    await pipe.write(data)
                except GONE:
                    pipe = None
            if queue.qsize() <= QUEUED and reader.transport is not None and not reader.ended.is_set():
                reader.transport.resume_reading()
        await ended

    def input(self, pipe: Pipe, writer: asyncio.StreamWriter, *, terminal: bool = False) -> None:
        """Send what the client writes to the command; its end closes the command's stdin (Ctrl-D on a terminal)."""
        self._inputs.append(asyncio.create_task(_copy_input(pipe, writer, terminal)))

    def resize(self, pipe: Pipe, descriptor: int) -> None:
        """Follow the size of the client's window."""
        self._descriptors.append(descriptor)
        self._inputs.append(asyncio.create_task(_follow_size(pipe, descriptor)))

    async def finish(self) -> None:
        """Send the rest of the output, then let go of everything."""
        try:
            for reader in self.readers:
                await reader.drain()
            await asyncio.gather(*self._outputs)
        finally:
            for task in (*self._inputs, *self._outputs):
                task.cancel()
            await asyncio.gather(*self._inputs, *self._outputs, return_exceptions=True)
            for reader in self.readers:
                reader.close()
            for descriptor in self._descriptors:
                os.close(descriptor)


async def _start(container: Container, options: ExecOptions, pipes: ExecPipes) -> tuple[Process, Attachment]:
    launch = container.launch_inside(options.command)
    stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
    try:
        process = await container.sandbox.context.launcher.start(launch, stdin[0], stdout[1], stderr[1])
    except BaseException:
        for descriptor in (stdin[1], stdout[0], stderr[0]):
            os.close(descriptor)
        raise
    finally:
        for descriptor in (stdin[0], stdout[1], stderr[1]):
            os.close(descriptor)
    attachment = Attachment()
    await attachment.output(stdout[0], pipes.stdout)
    await attachment.output(stderr[0], pipes.stderr)
    if pipes.stdin is None:
        os.close(stdin[1])
    else:
        attachment.input(pipes.stdin, await write_pipe(stdin[1]))
    return process, attachment


async def _start_terminal(container: Container, options: ExecOptions, pipes: ExecPipes) -> tuple[Process, Attachment]:
    launch = container.launch_inside(options.command, tty=True)
    launch = type(launch)(launch.program, launch.argv, {"TERM": "xterm", **launch.env}, launch.cwd, launch.tty)
    master, slave = pty.openpty()
    try:
        process = await container.sandbox.context.launcher.start(launch, slave, slave, slave)
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)
    attachment = Attachment()
    if pipes.resize is not None:
        attachment.resize(pipes.resize, os.dup(master))
    if pipes.stdin is not None:
        attachment.input(pipes.stdin, await write_pipe(os.dup(master)), terminal=True)
    await attachment.output(master, pipes.stdout)
    return process, attachment


async def _copy_input(pipe: Pipe, writer: asyncio.StreamWriter, terminal: bool) -> None:
    try:
        while data := await pipe.read():
            writer.write(data)
            await writer.drain()
        if terminal:
            writer.write(b"\x04")
            await writer.drain()
    except GONE:
        return  # the command has closed its stdin
    finally:
        writer.close()


async def _follow_size(pipe: Pipe, descriptor: int) -> None:
    received = b""
    while data := await pipe.read():
        received += data
        try:
            size, end = json.JSONDecoder().raw_decode(received.decode())
        except ValueError:
            continue  # a size that has not arrived completely
        received = received[len(received.decode()[:end].encode()) :].lstrip()
        window = struct.pack("HHHH", int(size["Height"]), int(size["Width"]), 0, 0)
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, termios.TIOCSWINSZ, window)
