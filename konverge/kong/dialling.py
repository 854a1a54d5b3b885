"""Opens the way to one proxy: httpx in front, aiohttp's connections behind it, TLS of our own below them.

It is httpx's transport that is used, without its client: redirects, authentication and cookies mean nothing here, and
cost over a quarter of the processor time of a small push.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import Callable
from typing import Any

import aiohappyeyeballs
import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from httpx_aiohttp import AiohttpTransport

from konverge.kong.exchanging import Response, build_trace
from konverge.kong.securing import secure

CONNECT_TIMEOUT = 5.0
"""Seconds for TCP and TLS together."""
KEPT_SECONDS = 60.0
"""Seconds that an idle connection is kept: less than Kong's 75 (``keepalive_timeout`` of nginx)."""


class Connector(aiohttp.TCPConnector):
    """Makes connections whose TLS holds no buffers while they are idle.

    Failures are wrapped as aiohttp does it: ClientConnectorCertificateError, ClientConnectorSSLError,
    ClientConnectorError.
    """

    async def _wrap_create_connection(  # type: ignore[override]
        self,
        factory: Callable[[], ResponseHandler],
        *,
        addr_infos: list[aiohttp.AddrInfoType],
        req: ClientRequest,
        timeout: aiohttp.ClientTimeout,
        ssl: ssl_module.SSLContext | None,
        server_hostname: str | None,
        client_error: type[Exception] = aiohttp.ClientConnectorError,
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        if ssl is None:
            return await super()._wrap_create_connection(
                factory, addr_infos=addr_infos, req=req, timeout=timeout, client_error=client_error, ssl=None,
                server_hostname=None,
            )  # fmt: skip
        try:
            async with asyncio.timeout(timeout.sock_connect):
                connected = await aiohappyeyeballs.start_connection(addr_infos)
                protocol = factory()
                return await secure(connected, ssl, server_hostname, protocol), protocol
        except ssl_module.CertificateError as error:
            raise aiohttp.ClientConnectorCertificateError(req.connection_key, error) from error
        except ssl_module.SSLError as error:
            raise aiohttp.ClientConnectorSSLError(req.connection_key, error) from error
        except TimeoutError as error:
            if error.errno is None:
                raise
            raise client_error(req.connection_key, error) from error
        except OSError as error:
            raise client_error(req.connection_key, error) from error


TIMEOUTS = {"connect": CONNECT_TIMEOUT, "read": None, "write": None, "pool": None}
"""What a request's extensions say of time; the time limit on the whole is the caller's."""


def open_transport(context: ssl_module.SSLContext, *, keep: bool) -> httpx.AsyncBaseTransport:
    """Return a transport that keeps its connections, or one that makes a new one for each request."""

    def open_session() -> aiohttp.ClientSession:
        kept: dict[str, Any] = {"keepalive_timeout": KEPT_SECONDS} if keep else {"force_close": True}
        return aiohttp.ClientSession(
            connector=Connector(ssl=context, limit=0, **kept),
            response_class=Response,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trace_configs=[build_trace()],
        )

    return AiohttpTransport(verify=context, client=open_session, trust_env=False)
