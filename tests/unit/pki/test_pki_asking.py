"""Whom a listener trusts can be read from the names that it sends when it asks for a client certificate.

Python's own servers send none; tests/e2e/test_intruders.py asks a proxy, which does.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import pytest

from konverge.errors import Unavailable
from konverge.pki.asking import read_trusted_names
from konverge.pki.authority import Authority, request_proxies
from konverge.pki.contexts import build_server_context

NAME = "gw-1.adm.kong.svc"
NOW = datetime.now(UTC)


@asynccontextmanager
async def listen(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await server.wait_closed()


async def test_a_listener_that_asks_for_no_certificate_names_nobody() -> None:
    context = build_server_context(Authority.create("one", NOW).issue(request_proxies("adm", "kong"), NOW))
    async with listen(context) as port:
        assert await read_trusted_names("127.0.0.1", port, NAME) == frozenset()


async def test_nobody_there_and_no_tls() -> None:
    async with listen(None) as port:
        with pytest.raises(Unavailable):
            await read_trusted_names("127.0.0.1", port, NAME)
    with pytest.raises(Unavailable):
        await read_trusted_names("127.0.0.1", port, NAME)
