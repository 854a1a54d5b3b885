"""Opens connections to the API server that notice when nobody is at their other end any more.

A watch only listens: without probes a partition would look like a quiet cluster until the watch is due for renewal,
which is minutes. Go's clients find it after 45 s by HTTP/2 pings (``ReadIdleTimeout`` 30 s, ``PingTimeout`` 15 s).
"""

from __future__ import annotations

import socket

import aiohttp
from kubernetes.aio.client import rest

IDLE_SECONDS = 15
PROBE_SECONDS = 5
PROBES = 3
"""A silent connection is probed after 15 s, and given up 15 s later where none of the probes is answered."""


class Dialler(rest.RESTClientObject):  # type: ignore[misc]
    """The official package's TLS and session, on connections with keepalive."""

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(limit=self.maxsize, ssl=self.ssl_context, socket_factory=open_socket)

    def open_session(self) -> aiohttp.ClientSession:
        """Return a new session; the caller closes it. SSLError, OSError or ValueError for unusable certificates."""
        session: aiohttp.ClientSession = self._create_pool_manager()
        return session


def open_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket that probes a silent peer (tcp(7)); not connected yet."""
    family, kind, protocol, *_ = address
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # macOS calls the idle time TCP_KEEPALIVE.
    names = ("TCP_KEEPIDLE", "TCP_KEEPALIVE"), ("TCP_KEEPINTVL",), ("TCP_KEEPCNT",)
    for known, value in zip(names, (IDLE_SECONDS, PROBE_SECONDS, PROBES), strict=True):
        for name in known:
            if hasattr(socket, name):
                opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
                break
    return opened
