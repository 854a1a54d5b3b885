"""Bytes that came and wait for a reader."""

from __future__ import annotations

import asyncio
from collections import deque


class Inbox:
    """Pieces in the order they came; for one reader."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self.ended = False
        """Whether nothing more comes."""

    def put(self, data: bytes) -> None:
        """Add a piece that is not empty."""
        self._pieces.append(data)
        self._arrived.set()

    def end(self) -> None:
        """Note that nothing more comes."""
        self.ended = True
        self._arrived.set()

    async def take(self) -> bytes:
        """Return the next piece, b"" once there is none and nothing more comes."""
        while not self._pieces:
            if self.ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        return self._pieces.popleft()
