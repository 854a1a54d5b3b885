"""One stream of a SPDY session: a pair of byte directions that end one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from konverge.lab.kubelet.spdy.frames import DATA_CHUNK, INITIAL_WINDOW
from konverge.lab.kubelet.streaming.inbox import Inbox

if TYPE_CHECKING:
    from konverge.lab.kubelet.spdy.session import Session


class SpdyStream:
    """Bytes to and from the peer under one stream number.

    ``read`` gives b"" at the end. ``write`` raises ConnectionResetError once the peer reset the stream or left.
    """

    def __init__(self, session: Session, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self._session = session
        self._inbox = Inbox()
        self._allowed = asyncio.Event()
        self._finished = False
        self.broken = False
        self.window = INITIAL_WINDOW
        self.unacknowledged = 0

    async def read(self) -> bytes:
        """Return the next bytes, or b"" when the peer has finished its half."""
        data = await self._inbox.take()
        if data:
            self._session.acknowledge(self, len(data))
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; waits for the peer's window where the peer does flow control."""
        view = memoryview(data)
        while view:
            if self.broken or self._finished:
                raise ConnectionResetError(f"SPDY stream {self.number} is closed.")
            size = min(len(view), DATA_CHUNK, self._session.allowance(self))
            if size <= 0:
                self._allowed.clear()
                await self._allowed.wait()
                continue
            await self._session.send_data(self, bytes(view[:size]))
            view = view[size:]

    async def finish(self) -> None:
        """Close our half; calling it again does nothing."""
        if not self._finished and not self.broken:
            self._finished = True
            await self._session.send_data(self, b"", fin=True)
            self._session.forget_if_done(self)

    @property
    def done(self) -> bool:
        """Whether both halves are closed."""
        return self.broken or (self._inbox.ended and self._finished)

    def receive(self, data: bytes) -> None:
        """Take bytes from the session."""
        if data and not self._inbox.ended:
            self._inbox.put(data)

    def receive_end(self) -> None:
        """Note that the peer closed its half."""
        self._inbox.end()

    def break_off(self) -> None:
        """Note that the stream was reset or that the session ended."""
        self.broken = True
        self.receive_end()
        self._allowed.set()

    def widen(self, size: int) -> None:
        """Allow ``size`` more bytes to be sent."""
        self.window += size
        self._allowed.set()
