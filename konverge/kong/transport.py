"""Carries one request to one proxy: httpx on aiohttp's connections, verified TLS, a time limit on the whole.

One :class:`Channel` per proxy keeps its connections; a *fresh* request never uses a kept one, because a kept
connection is held by the worker that accepted it, also while that worker drains with the old configuration
and the old trust. HTTP/1.1: Kong's HTTP/2 brings nothing measurable for these requests.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import TracebackType
from typing import Any, Self

import aiohttp
import httpx

from konverge.errors import UsageError
from konverge.kong.dialling import TIMEOUTS, open_transport
from konverge.kong.exchanging import PATIENT_SIZE, Exchange, Peer, current
from konverge.kong.failures import LostConnection, find_alert, find_cause
from konverge.kong.outcomes import UnreachableCause

DRAINED = 64
"""Bytes that are kept of an answer that says all with its status."""

AGENT = "konverge"
MOST_URLS = 16
"""URLs of one proxy that are remembered; pages of entities have each their own."""

_FAILURES = (httpx.HTTPError, aiohttp.ClientError, OSError)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: lower-case header names, a prefix of the body, the size of all of it in bytes.

    ``complete`` is false where the body broke off; ``reused`` is true on a connection kept from before; ``peer`` is
    who answered, None without TLS.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    size: int = 0
    complete: bool = True
    reused: bool = False
    peer: Peer | None = None


class Channel:
    """Sends requests to one base URL such as ``https://10.0.0.7:8444``.

    ``server_name`` is sent as SNI and compared with the certificate instead of the dialled address. An https
    URL needs a context that verifies; UsageError otherwise. ``tunnel``: the URL is the local end of a port-forward,
    which the API server has authenticated; there, and there alone, the context need not verify.
    """

    def __init__(
        self, url: str, context: ssl.SSLContext | None = None, server_name: str = "", *, tunnel: bool = False
    ) -> None:
        self.url = url.rstrip("/")
        self._context = _require_verification(self.url, context, tunnel)
        named = {"sni_hostname": server_name} if server_name and context else {}
        self._extensions: dict[str, Any] = {"timeout": TIMEOUTS, **named}
        self._kept = open_transport(self._context, keep=True)
        self._fresh: httpx.AsyncBaseTransport | None = None
        self._urls: dict[str, httpx.URL] = {}
        self._patient = True
        self._under_way = 0
        self._retired = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the kept connections."""
        await self._kept.aclose()
        if self._fresh is not None:
            await self._fresh.aclose()

    async def retire(self) -> None:
        """Close at once where nothing is under way, else with the end of the last request; send nothing more."""
        self._retired = True
        await self._leave()

    async def _leave(self) -> None:
        if self._retired and not self._under_way:
            await self.close()

    async def send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float,
        keep: int,
        fresh: bool = False,
        drain: int = 0,
    ) -> Answer:
        """Send one request within ``timeout`` seconds and keep up to ``keep`` bytes of the answer's body.

        Of an answer with the HTTP status ``drain`` all is read and the first bytes are kept.

        Raises LostConnection where there is no answer. An answer that breaks off in its body is returned.
        """
        if self._retired:
            raise LostConnection(f"{self.url}: its connections were given up", UnreachableCause.CLOSED)
        self._under_way += 1
        try:
            return await self._send(method, path, content, headers or {}, timeout, _Keeping(keep, drain), fresh)
        finally:
            self._under_way -= 1
            await self._leave()

    async def _send(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str],
        timeout: float,
        keep: _Keeping,
        fresh: bool,
    ) -> Answer:
        deadline = asyncio.get_running_loop().time() + timeout
        patient = self._patient and len(content or b"") > PATIENT_SIZE
        exchange = Exchange(deadline, body=content is not None, patient=patient)
        try:
            return await self._attempt(exchange, method, path, content, headers, keep, fresh)
        except _FAILURES as error:
            if not exchange.ignored or not isinstance(error, TimeoutError):
                raise self._lost(error, exchange, timeout) from error
        self._patient = False
        exchange = Exchange(deadline, body=True, patient=False)
        try:
            return await self._attempt(exchange, method, path, content, headers, keep, fresh=True)
        except _FAILURES as error:
            raise self._lost(error, exchange, timeout) from error

    async def _attempt(
        self,
        exchange: Exchange,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str],
        keep: _Keeping,
        fresh: bool,
    ) -> Answer:
        sent = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": AGENT, **headers}
        if content is not None:
            sent["Content-Length"] = str(len(content))
        if exchange.patient:
            sent["Expect"] = "100-continue"
        body = exchange.read_pieces(content) if content is not None else None
        request = httpx.Request(method, self._locate(path), content=body, headers=sent, extensions=self._extensions)
        token = current.set(exchange)
        try:
            async with exchange.limit():
                response = await self._select(fresh).handle_async_request(request)
                exchange.begin()
                try:
                    answer = await _read(response, keep, exchange)
                finally:
                    await response.aclose()
                return replace(answer, reused=exchange.reused, peer=exchange.peer)
        finally:
            current.reset(token)

    def _locate(self, path: str) -> httpx.URL:
        """Return the URL of a path; the few that are asked for all day are taken apart once."""
        if path not in self._urls:
            if len(self._urls) >= MOST_URLS:
                self._urls.clear()
            self._urls[path] = httpx.URL(self.url + path)
        return self._urls[path]

    def _select(self, fresh: bool) -> httpx.AsyncBaseTransport:
        if not fresh:
            return self._kept
        if self._fresh is None:
            self._fresh = open_transport(self._context, keep=False)
        return self._fresh

    def _lost(self, error: BaseException, exchange: Exchange, timeout: float) -> LostConnection:
        cause, words = find_cause(error)
        if cause is UnreachableCause.TIMED_OUT:
            words = f"no answer within {timeout:g} s"
        return LostConnection(
            f"{self.url}: {words}",
            cause,
            exchange.delivery,
            reused=exchange.reused,
            alert=find_alert(error),
        )


@dataclass(frozen=True, slots=True)
class _Keeping:
    """How much of a body is kept: ``most`` bytes, or next to nothing where the status is ``drain``."""

    most: int
    drain: int

    def limit(self, status: int) -> int:
        return min(self.most, DRAINED) if status == self.drain else self.most


async def _read(response: httpx.Response, keeping: _Keeping, exchange: Exchange) -> Answer:
    keep, kept, size, complete = keeping.limit(response.status_code), bytearray(), 0, True
    pieces = response.aiter_raw()
    if keep < keeping.most and exchange.answer is not None:
        # httpx cuts a body into pieces of 16 KiB, which costs more than all else where it is only counted.
        pieces = exchange.answer.iter_any()
    try:
        async for chunk in pieces:
            size += len(chunk)
            if len(kept) < keep:
                kept += chunk[: keep - len(kept)]
    except _FAILURES:
        complete = False
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, bytes(kept), size, complete)


def _require_verification(url: str, context: ssl.SSLContext | None, tunnel: bool) -> ssl.SSLContext:
    if not url.startswith("https://"):
        return _plain_context()
    if tunnel and context is not None and url.startswith("https://127.0.0.1:"):
        return context
    if context is None or context.verify_mode != ssl.CERT_REQUIRED or not context.check_hostname:
        raise UsageError(
            f"{url} needs a TLS context that verifies the server and its name",
            reason="UnverifiedServer",
            hint="reference/errors.md#unverified-server",
        )
    return context


@cache
def _plain_context() -> ssl.SSLContext:
    """Return a context for channels without TLS: building the default one costs 20 ms per proxy."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
