"""Asks a TLS listener whom it trusts: a server that wants a client certificate names its authorities.

RFC 8446, 4.2.4; nginx sends the subjects of ``ssl_client_certificate``. No key is needed to see them, so the trust of
a listener can be read even where the authority's key is somebody else's.
"""

from __future__ import annotations

import asyncio
import socket
import time

from OpenSSL import SSL

from konverge.errors import Unavailable

ASKING_TIMEOUT = 5.0
"""Seconds for all of it."""


async def read_trusted_names(
    host: str, port: int, server_name: str, *, timeout: float = ASKING_TIMEOUT
) -> frozenset[bytes]:
    """Return the subjects, in DER, of the authorities that a listener names; none where it asks for no certificate.

    Nothing is sent beyond the handshake, and nothing that is shown is believed. Unavailable where nobody answers.
    """
    return await asyncio.to_thread(_ask, (host, port), server_name, timeout)


def _ask(address: tuple[str, int], server_name: str, timeout: float) -> frozenset[bytes]:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    try:
        with socket.create_connection(address, timeout) as plain:
            connection = SSL.Connection(context, None)
            connection.set_tlsext_host_name(server_name.encode("ascii"))
            connection.set_connect_state()
            _shake_hands(connection, plain, time.monotonic() + timeout)
            return frozenset(name.der() for name in connection.get_client_ca_list())
    except (OSError, SSL.Error) as error:
        raise Unavailable(f"{address[0]}:{address[1]} as {server_name}: {error or type(error).__name__}") from error


def _shake_hands(connection: SSL.Connection, plain: socket.socket, deadline: float) -> None:
    """Carry the handshake's bytes by hand: a connection of its own would ignore the socket's timeout."""
    while True:
        try:
            connection.do_handshake()
            return
        except SSL.WantReadError:
            _flush(connection, plain)
        plain.settimeout(max(0.01, deadline - time.monotonic()))
        piece = plain.recv(65536)
        if not piece:
            raise OSError("the connection ended in the handshake")
        connection.bio_write(piece)


def _flush(connection: SSL.Connection, plain: socket.socket) -> None:
    try:
        plain.sendall(connection.bio_read(65536))
    except SSL.WantReadError:
        return
