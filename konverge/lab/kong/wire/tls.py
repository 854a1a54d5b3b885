"""TLS on the server side that lets every client certificate through the handshake, like nginx does.

nginx asks for a certificate, completes the handshake whatever it gets, and refuses on the HTTP level. Python's ssl
module cannot do that; OpenSSL can, with a verify callback that always agrees. Whether the certificate is any good
is decided after the handshake by :class:`Trust` - except for a resumed session, which nginx does not check again:
this is how an expired certificate keeps working for a day.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from OpenSSL import SSL, crypto

from konverge.lab.kong.wire.exchange import Peer

log = logging.getLogger(__name__)

HANDSHAKE_BYTE = b"\x16"
READ_SIZE = 64 * 1024
HANDSHAKE_TIMEOUT = 60.0
VERIFIED = object()
"""Set as a connection's app data when OpenSSL presents a client certificate, that is in a full handshake."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a completed handshake tells."""

    alpn: str = ""
    certificate: crypto.X509 | None = None
    chain: tuple[crypto.X509, ...] = ()
    resumed: bool = False
    """A session was taken up again: OpenSSL did not look at the certificate."""
    plain: bool = False
    """The client did not speak TLS at all."""


ProtocolFactory = Callable[[Peer, Handshake], asyncio.Protocol]


class TlsTransport(asyncio.Transport):
    """What the protocol above TLS writes to."""

    def __init__(self, layer: TlsLayer) -> None:
        super().__init__()
        self._layer = layer

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Encrypt and send."""
        self._layer.send(bytes(data))

    def is_closing(self) -> bool:
        """Tell whether the connection is being closed."""
        return self._layer.closing

    def close(self) -> None:
        """Send close_notify, flush, FIN."""
        self._layer.shut_down()

    def abort(self) -> None:
        """Drop at once."""
        self._layer.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Ask the transport below."""
        return self._layer.raw.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Stop the transport below."""
        if not self._layer.raw.is_closing():
            self._layer.raw.pause_reading()

    def resume_reading(self) -> None:
        """Restart the transport below."""
        if not self._layer.raw.is_closing():
            self._layer.raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the transport below still holds."""
        return self._layer.raw.get_write_buffer_size()


class TlsLayer(asyncio.Protocol):
    """The protocol that sits on the socket; it makes the real one after the handshake."""

    raw: asyncio.Transport

    def __init__(self, context: SSL.Context, peer: Peer, factory: ProtocolFactory, handshakes: set[TlsLayer]) -> None:
        self._handshakes = handshakes
        self._ssl = SSL.Connection(context, None)
        self._ssl.set_accept_state()
        self._peer = peer
        self._factory = factory
        self._above: asyncio.Protocol | None = None
        self._plain = False
        self._shaken = False
        self._seen = False
        self._timer: asyncio.TimerHandle | None = None
        self.closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first byte: it tells TLS from plain HTTP."""
        assert isinstance(transport, asyncio.Transport)
        self.raw = transport
        self._handshakes.add(self)
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT, transport.close)

    def data_received(self, data: bytes) -> None:
        """Feed the engine."""
        if self._plain:
            self._deliver(data)
            return
        if self._fresh() and data[:1] != HANDSHAKE_BYTE:
            self._speak_plain(data)
            return
        self._ssl.bio_write(data)
        try:
            if not self._shaken:
                self._shake_hands()
            if self._shaken:
                self._read()
        except SSL.Error:
            self._fail()

    def _fresh(self) -> bool:
        fresh, self._seen = not self._seen, True
        return fresh

    def _speak_plain(self, data: bytes) -> None:
        self._plain = True
        self._settle()
        self._above = self._factory(self._peer, Handshake(plain=True))
        self._above.connection_made(self.raw)
        self._deliver(data)

    def _settle(self) -> None:
        self._handshakes.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _shake_hands(self) -> None:
        try:
            self._ssl.do_handshake()
        except SSL.WantReadError:
            self._pump()
            return
        self._pump()
        self._shaken = True
        self._settle()
        self._peer.sni = (self._ssl.get_servername() or b"").decode("ascii", "replace")
        self._peer.tls_version = self._ssl.get_protocol_version_name()
        certificate = self._ssl.get_peer_certificate()
        self._above = self._factory(
            self._peer,
            Handshake(
                alpn=self._ssl.get_alpn_proto_negotiated().decode("ascii"),
                certificate=certificate,
                chain=tuple(self._ssl.get_peer_cert_chain() or ()),
                resumed=certificate is not None and self._ssl.get_app_data() is not VERIFIED,
            ),
        )
        self._above.connection_made(TlsTransport(self))

    def _read(self) -> None:
        while True:
            try:
                data = self._ssl.recv(READ_SIZE)
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError:
                self._pump()
                self.eof_received()
                return
            self._deliver(data)
        self._pump()

    def _deliver(self, data: bytes) -> None:
        if self._above is not None:
            self._above.data_received(data)

    def _pump(self) -> None:
        while not self.raw.is_closing():
            try:
                data = self._ssl.bio_read(READ_SIZE)
            except SSL.WantReadError:
                return
            self.raw.write(data)

    def _fail(self) -> None:
        """Send the alert that OpenSSL prepared, then close."""
        self._pump()
        self.closing = True
        self.raw.close()

    def send(self, data: bytes) -> None:
        """Encrypt and send."""
        if self.closing or self.raw.is_closing():
            return
        try:
            view = memoryview(data)
            while view:
                sent = self._ssl.send(view[:READ_SIZE])
                view = view[sent:]
                self._pump()
        except SSL.Error:
            self._fail()

    def shut_down(self) -> None:
        """Send close_notify, flush, FIN."""
        if self.closing:
            return
        self.closing = True
        try:
            self._ssl.shutdown()
        except SSL.Error:
            log.debug("no close_notify possible")
        self._pump()
        self.raw.close()

    def abort(self) -> None:
        """Drop at once."""
        self.closing = True
        self.raw.abort()

    def eof_received(self) -> bool | None:
        """Pass the end of the stream up; without anybody who wants to go on, close."""
        if self._above is None or not self._above.eof_received():
            self.shut_down()
        return True

    def close(self) -> None:
        """Close in the middle of a handshake."""
        self.raw.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the loss up."""
        self.closing = True
        self._settle()
        if self._above is not None:
            self._above.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass up."""
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """Pass up."""
        if self._above is not None:
            self._above.resume_writing()
