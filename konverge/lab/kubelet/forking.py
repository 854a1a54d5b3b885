"""The kubelet's side of the fork server: starts it, asks it for processes, hears of their ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys

from konverge.lab.kubelet.processes import Launch, LaunchFailed, Process, kill_sessions

READY_TIMEOUT = 30.0
"""Seconds for the imports of a fork server; some 0.7 on an idle core."""
START_TIMEOUT = 15.0
MESSAGE = 4096
log = logging.getLogger(__name__)


class ForkingLauncher:
    """Starts processes through a fork server, which is started on first use and again after it died."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._channel: socket.socket | None = None
        self._server: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._number = 0
        self._pending: dict[int, asyncio.Future[Process]] = {}
        self._running: dict[int, Process] = {}

    async def start(self, launch: Launch, stdin: int, stdout: int, stderr: int) -> Process:
        """Start a process; LaunchFailed where the fork server is gone or refuses."""
        async with self._lock:
            await self._ensure_server()
        self._number += 1
        number = self._number
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        payload = os.memfd_create("launch", os.MFD_CLOEXEC)
        try:
            os.write(payload, _encode(launch))
            os.lseek(payload, 0, os.SEEK_SET)
            await self._send(json.dumps({"id": number}).encode(), [payload, stdin, stdout, stderr])
            return await asyncio.wait_for(future, START_TIMEOUT)
        except (OSError, TimeoutError) as error:
            raise LaunchFailed(f"The lab's fork server does not answer: {error}") from error
        finally:
            os.close(payload)
            self._pending.pop(number, None)

    async def prepare(self) -> None:
        """Start the fork server ahead of the first container."""
        async with self._lock:
            await self._ensure_server()

    async def _ensure_server(self) -> None:
        if self._channel is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._server = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "konverge.lab.kubelet.zygote",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise LaunchFailed(f"Cannot start the lab's fork server: {error}") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        self._channel = ours
        self._ready.clear()
        asyncio.get_running_loop().add_reader(ours.fileno(), self._receive, ours)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), READY_TIMEOUT)

    async def _send(self, message: bytes, descriptors: list[int]) -> None:
        loop = asyncio.get_running_loop()
        while self._channel is not None:
            channel = self._channel
            try:
                socket.send_fds(channel, [message], descriptors)
                return
            except BlockingIOError:
                writable = loop.create_future()
                loop.add_writer(channel.fileno(), _set, writable)
                try:
                    await asyncio.wait_for(writable, START_TIMEOUT)
                finally:
                    loop.remove_writer(channel.fileno())
        raise LaunchFailed("The lab's fork server has ended.")

    def _receive(self, channel: socket.socket) -> None:
        while True:
            try:
                message = channel.recv(MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._lose(channel)
                return
            self._handle(json.loads(message))

    def _handle(self, message: dict[str, int | str]) -> None:
        number = int(message["id"])
        if number == 0:
            self._ready.set()
            return
        future = self._pending.get(number)
        if "pid" in message:
            process = self._running[number] = Process(int(message["pid"]))
            if future is not None and not future.done():
                future.set_result(process)
            else:
                process.kill()  # nobody waits for it any more
        elif "exit" in message:
            ended = self._running.pop(number, None)
            if ended is not None:
                ended.finish(int(message["exit"]))
        elif future is not None and not future.done():
            future.set_exception(LaunchFailed(f"The lab's fork server refuses: {message.get('error')}"))

    def _lose(self, channel: socket.socket) -> None:
        """The fork server is gone, and the kernel has killed its children: nothing of it is left."""
        asyncio.get_running_loop().remove_reader(channel.fileno())
        channel.close()
        self._channel = None
        self._ready.set()
        if self._running:
            log.warning("The fork server ended with %d processes running.", len(self._running))
        kill_sessions([process.pid for process in self._running.values()])
        for process in self._running.values():
            process.finish(-9)
        self._running.clear()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(LaunchFailed("The lab's fork server has ended."))

    async def close(self) -> None:
        """Kill what still runs and end the fork server."""
        kill_sessions([process.pid for process in self._running.values()])
        if self._channel is not None:
            self._lose(self._channel)
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                self._server.kill()
            await self._server.wait()


def _encode(launch: Launch) -> bytes:
    content = {
        "module": launch.program.module,
        "function": launch.program.function,
        "argv": list(launch.argv),
        "env": dict(launch.env),
        "cwd": launch.cwd,
        "tty": launch.tty,
    }
    return json.dumps(content).encode()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
