"""One proxied TCP connection: bytes, half-closes and resets go through as they come.

Plain non-blocking sockets: this is the hot path, and the difference between FIN and RST must survive it.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable
from enum import Enum

from konverge.lab.balancer.polling import READ, WRITE, Poller
from konverge.lab.balancer.tables import Address

CHUNK = 65536
"""Bytes read at once."""
SYN_SECONDS = 127.0
"""How long Linux tries to connect to a silent address with ``tcp_syn_retries`` = 6."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_PENDING = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN)


class Ending(Enum):
    """How a connection ended."""

    CLOSED = "closed"
    REFUSED = "refused"
    RESET = "reset"


class _Side:
    """One socket; ``held`` are bytes that it has not taken yet, ``ended`` says that it sent its last byte."""

    __slots__ = ("ended", "fileno", "held", "mask", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.fileno = sock.fileno()
        self.mask = 0
        self.held = b""
        self.ended = False


class Pipe:
    """Connects an accepted socket with an endpoint until both sides have said that they are done."""

    __slots__ = ("_backend", "_client", "_done", "_on_end", "_on_open", "_poller", "moved")

    def __init__(
        self,
        poller: Poller,
        client: socket.socket,
        on_open: Callable[[], None],
        on_end: Callable[[Pipe, Ending], None],
    ) -> None:
        self._poller = poller
        self._client = _Side(client)
        self._backend = _Side(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        self._on_open = on_open
        self._on_end = on_end
        self._done = False
        self.moved = 0
        """Bytes passed on in both directions."""

    def dial(self, address: Address) -> None:
        """Connect to the endpoint; what the client sends meanwhile waits in its socket."""
        if self._done:
            return
        endpoint = self._backend.socket
        for side in (self._client.socket, endpoint):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        status = endpoint.connect_ex(address)
        if status and status not in _PENDING:
            self.end(Ending.REFUSED)
        elif _is_connected(endpoint):
            self._open()
        else:
            self._backend.mask = WRITE
            self._poller.watch(self._backend.fileno, WRITE, self._on_connect)

    def hang(self) -> None:
        """Take no endpoint and give no answer until the client gives up; ``end`` is the caller's time-out."""
        self._client.mask = READ
        self._poller.watch(self._client.fileno, READ, self._discard)

    def end(self, how: Ending) -> None:
        """Close both sides; with a reset unless everything was delivered."""
        if self._done:
            return
        self._done = True
        for side in (self._client, self._backend):
            if side.mask:
                self._poller.forget(side.fileno)
            if how is not Ending.CLOSED:
                with contextlib.suppress(OSError):
                    side.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            side.socket.close()
        self._on_end(self, how)

    def _discard(self, _events: int) -> None:
        try:
            data = self._client.socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end(Ending.REFUSED)

    def _on_connect(self, _events: int) -> None:
        if self._backend.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.end(Ending.REFUSED)
            return
        self._backend.mask = 0
        self._poller.forget(self._backend.fileno)
        self._open()

    def _open(self) -> None:
        self._on_open()
        self._client.mask = self._backend.mask = READ
        self._poller.watch(self._backend.fileno, READ, self._on_backend)
        self._poller.watch(self._client.fileno, READ, self._on_client)
        # The request is usually there already: one turn of the loop saved.
        self._read(self._client, self._backend)

    def _on_client(self, events: int) -> None:
        self._handle(self._client, self._backend, events)

    def _on_backend(self, events: int) -> None:
        self._handle(self._backend, self._client, events)

    def _handle(self, side: _Side, other: _Side, events: int) -> None:
        if side.held and events != READ:
            self._flush(side, other)
        # An error or a hang-up without an interest in reading is found out by the next write.
        if side.mask & READ and events != WRITE and not self._done:
            self._read(side, other)

    def _read(self, side: _Side, other: _Side) -> None:
        try:
            data = side.socket.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.end(Ending.RESET)
            return
        if not data:
            self._pass_end(side, other)
            return
        self.moved += len(data)
        try:
            sent = other.socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._give_up(side, other)
            return
        if sent < len(data):
            # The receiver is slower: read no more until it has caught up.
            other.held = data[sent:]
            self._want(side, side.mask & ~READ)
            self._want(other, other.mask | WRITE)

    def _flush(self, side: _Side, other: _Side) -> None:
        try:
            sent = side.socket.send(side.held)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            side.held = b""
            self._want(side, side.mask & ~WRITE)
            self._give_up(other, side)
            return
        side.held = side.held[sent:]
        if not side.held:
            self._want(side, side.mask & ~WRITE)
            self._want(other, other.mask | READ)

    def _pass_end(self, side: _Side, other: _Side) -> None:
        """Pass a half-close on; after the second one the connection is over."""
        side.ended = True
        if other.ended:
            self.end(Ending.CLOSED)
            return
        self._want(side, side.mask & ~READ)
        with contextlib.suppress(OSError):
            other.socket.shutdown(socket.SHUT_WR)

    def _give_up(self, side: _Side, other: _Side) -> None:
        """Stop listening to a side whose receiver is gone; what that one sent before is still delivered."""
        side.ended = True
        if other.ended:
            self.end(Ending.RESET)
            return
        self._want(side, side.mask & ~READ)

    def _want(self, side: _Side, mask: int) -> None:
        """Change what is waited for; a socket of which nothing is wanted is not watched at all."""
        if mask == side.mask:
            return
        if not mask:
            self._poller.forget(side.fileno)
        elif side.mask:
            self._poller.change(side.fileno, mask)
        else:
            callback = self._on_client if side is self._client else self._on_backend
            self._poller.watch(side.fileno, mask, callback)
        side.mask = mask


def _is_connected(sock: socket.socket) -> bool:
    """Tell whether a connect has succeeded already, as it mostly has on one machine."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
