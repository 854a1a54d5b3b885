"""One request and its reply, the same for HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from konverge.lab.kong.wire.body import Body
from konverge.lab.kong.wire.message import HeaderItems, Headers

if TYPE_CHECKING:
    from konverge.lab.kong.wire.connections import ServerContext


@dataclass(slots=True)
class Peer:
    """Where a connection comes from and how it came."""

    remote: tuple[str, int] = ("", 0)
    local: tuple[str, int] = ("", 0)
    tls: bool = False
    sni: str = ""
    tls_version: str = ""
    refusal: str = ""
    """Why nginx refuses the client certificate ("" when it does not)."""
    worker: ServerContext | None = None
    """The generation of workers that the connection belongs to."""


@dataclass(slots=True)
class Request:
    """A request as it arrived. ``target`` is the raw request target."""

    method: str
    target: str
    version: str
    headers: Headers
    body: Body
    peer: Peer
    started: float = field(default_factory=time.monotonic)

    @property
    def scheme(self) -> str:
        """Return http or https."""
        return "https" if self.peer.tls else "http"


class Reply:
    """The answer to one request. ``start`` once, ``write`` any number of times, ``end`` once."""

    started = False
    ended = False
    status = 0
    sent = 0
    """Bytes of head and body that were written, framing not counted."""

    async def start(self, status: int, headers: HeaderItems, *, reason: str | None = None) -> None:
        """Send the head. A field ("Connection", "") is filled in by the protocol; without a Content-Length
        the body is chunked (HTTP/1.1) or just ends (HTTP/2)."""
        raise NotImplementedError

    async def write(self, data: bytes) -> None:
        """Send a piece of the body. Raises StreamClosed where the client is gone."""
        raise NotImplementedError

    async def end(self) -> None:
        """Finish the message."""
        raise NotImplementedError

    def abort(self) -> None:
        """Drop the connection (HTTP/1.1) or reset the stream (HTTP/2)."""
        raise NotImplementedError

    def reset(self) -> None:
        """Drop the connection with RST (HTTP/1.1) or reset the stream (HTTP/2)."""
        self.abort()

    def close_after(self) -> None:
        """Close the connection once this reply is out."""

    async def send(self, status: int, headers: HeaderItems, body: bytes = b"") -> None:
        """Send a whole reply."""
        await self.start(status, headers)
        if body:
            await self.write(body)
        await self.end()


Handler = Callable[[Request, Reply], Awaitable[None]]
