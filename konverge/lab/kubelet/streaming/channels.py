"""The WebSocket channel protocols: the first byte of a message is the number of its channel.

``channel.k8s.io`` and ``v4`` are binary, the ``base64`` forms write the number as a digit and the rest as base64;
``v5.channel.k8s.io`` adds [255, n]: the client closes channel n.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterable

from aiohttp import WSMsgType, web

from konverge.lab.kubelet.streaming.inbox import Inbox

CLOSE_SIGNAL = 255
EXEC_PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
FORWARD_PROTOCOLS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io")
TUNNEL_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
BUFFER_LIMIT = 1024 * 1024
"""Unread bytes of a connection above which no more is read from it."""


class Channel:
    """One numbered channel of a WebSocket."""

    def __init__(self, connection: ChannelConnection, number: int) -> None:
        self._connection = connection
        self._number = number
        self._inbox = Inbox()

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        data = await self._inbox.take()
        self._connection.consume(len(data))
        return data

    async def write(self, data: bytes) -> None:
        """Send one message."""
        await self._connection.send(self._number, data)

    async def finish(self) -> None:
        """Do nothing: the server's channels end with the connection."""

    def receive(self, data: bytes) -> None:
        """Take bytes from the connection."""
        self._inbox.put(data)

    def end(self) -> None:
        """Note that the client sends no more."""
        self._inbox.end()


class ChannelConnection:
    """A WebSocket whose messages belong to channels."""

    def __init__(self, socket: web.WebSocketResponse, channels: Iterable[int]) -> None:
        protocol = socket.ws_protocol or ""
        self._socket = socket
        self._encoded = "base64" in protocol
        self._closing = protocol.startswith("v5.")
        self._channels = {number: Channel(self, number) for number in channels}
        self._unread = 0
        self._room = asyncio.Event()
        self._room.set()

    def channel(self, number: int) -> Channel:
        """Return a channel by number."""
        return self._channels[number]

    async def send(self, number: int, data: bytes) -> None:
        """Send one message on a channel; ConnectionResetError when the client is gone."""
        if self._socket.closed:
            raise ConnectionResetError("The WebSocket is closed.")
        if self._encoded:
            await self._socket.send_str(str(number) + base64.b64encode(data).decode())
        else:
            await self._socket.send_bytes(bytes([number]) + data)

    def consume(self, size: int) -> None:
        """Account for bytes that were read from a channel."""
        self._unread -= size
        if self._unread <= BUFFER_LIMIT // 2:
            self._room.set()

    async def pump(self) -> None:
        """Deliver messages until the client closes; then every channel ends."""
        try:
            async for message in self._socket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    self._deliver(message.data.encode() if message.type is WSMsgType.TEXT else message.data)
                    await self._room.wait()
        finally:
            for channel in self._channels.values():
                channel.end()

    def _deliver(self, message: bytes) -> None:
        if not message:
            return
        number, data = message[0], message[1:]
        if self._encoded:
            number -= ord("0")
            try:
                data = base64.b64decode(data, validate=True)
            except binascii.Error:
                return
        if self._closing and number == CLOSE_SIGNAL and data:
            closed = self._channels.get(data[0])
            if closed is not None:
                closed.end()
            return
        channel = self._channels.get(number)
        if channel is not None and data:
            self._unread += len(data)
            if self._unread > BUFFER_LIMIT:
                self._room.clear()
            channel.receive(data)
