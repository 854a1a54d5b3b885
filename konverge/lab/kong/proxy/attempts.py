"""Sending a request to an upstream: choosing a target, trying again, giving up."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from konverge.lab.kong.plugins.base import Context
from konverge.lab.kong.proxy import health
from konverge.lab.kong.proxy.balancer import Balancer, Target, note_latency
from konverge.lab.kong.proxy.forwarding import upstream_host
from konverge.lab.kong.proxy.upstream import Origin, UpstreamConnection
from konverge.lab.kong.wire.body import Body, BytesBody
from konverge.lab.kong.wire.message import BadMessage, Headers, print_head
from konverge.lab.kong.wire.stream import StreamClosed

if TYPE_CHECKING:
    from konverge.lab.kong.proxy.gateway import Gateway

BUFFERED = 1024 * 1024
"""Request bodies up to this size are read before they are sent on, so that they can be sent again."""
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})
TLS_PROTOCOLS = ("https", "grpcs", "tls", "wss")


class Unreachable(Exception):
    """No upstream gave an answer; ``status`` and ``message`` are what the client gets, ``tried`` whether one was
    contacted at all."""

    def __init__(self, status: int, message: str | None = None, *, tried: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.tried = tried


@dataclass(slots=True)
class Attempt:
    """An answer that has begun."""

    connection: UpstreamConnection
    origin: Origin
    status: int
    reason: str
    version: str
    headers: Headers
    balancer: Balancer | None
    target: Target | None
    started: float
    waited: float = 0.0


@dataclass(slots=True)
class Courier:
    """Carries one request to its upstream."""

    gateway: Gateway
    context: Context
    tried: set[str] = field(default_factory=set)
    body: Body = field(default_factory=Body)
    replayable: bool = True

    async def deliver(self) -> Attempt:
        """Return the first answer. Raises Unreachable."""
        service = self.context.match.service
        assert service is not None
        await self._buffer_body()
        retries = service.get("retries")
        last: Unreachable | None = None
        for _ in range((5 if retries is None else retries) + 1):
            try:
                return await self._attempt(service)
            except _TryAgain as failure:
                last = Unreachable(failure.status)
            except Unreachable as failure:
                raise last or failure from None
        raise last or Unreachable(502)

    async def _buffer_body(self) -> None:
        source = self.context.request.body
        buffer = self.context.match.route.get("request_buffering", True)
        small = source.length is None or source.length <= BUFFERED
        if source.ended:
            self.body = source
        elif buffer and small:
            pieces: list[bytes] = []
            size = 0
            while size <= BUFFERED and (piece := await source.read()):
                pieces.append(piece)
                size += len(piece)
            whole = b"".join(pieces)
            self.body = BytesBody(whole) if source.ended else _Continued(whole, source)
            self.replayable = source.ended
        else:
            self.body, self.replayable = source, False

    async def _attempt(self, service: dict[str, object]) -> Attempt:
        origin, balancer, target, host = self._choose(service)
        started = time.monotonic()
        pooled = self.gateway.pool.take(origin)
        connection = pooled or await self._connect(origin, service, balancer, target)
        if target is not None:
            target.connections += 1
        try:
            return await self._exchange(connection, origin, balancer, target, host, service, started)
        except TimeoutError:
            self._failed(connection, balancer, target, "timeout")
            raise self._again(504, False) from None
        except (StreamClosed, OSError, BadMessage) as failure:
            self._failed(connection, balancer, target, "tcp")
            stale = pooled is not None and isinstance(failure, StreamClosed)
            raise self._again(502, stale) from None
        except BaseException:
            self._failed(connection, balancer, target, "")
            raise

    def _again(self, status: int, stale: bool) -> Exception:
        """Return whether it may be tried again: what was sent must be harmless to send twice."""
        if self.replayable and (stale or self.context.method in IDEMPOTENT):
            return _TryAgain(status)
        return Unreachable(status)

    def _failed(
        self, connection: UpstreamConnection, balancer: Balancer | None, target: Target | None, outcome: str
    ) -> None:
        self.gateway.pool.discard(connection)
        if target is not None:
            target.connections -= 1
            if balancer is not None and outcome:
                health.note(balancer, target, outcome)

    async def _connect(
        self, origin: Origin, service: dict[str, object], balancer: Balancer | None, target: Target | None
    ) -> UpstreamConnection:
        milliseconds = service.get("connect_timeout")
        timeout = (milliseconds if isinstance(milliseconds, int) else 60000) / 1000
        try:
            return await self.gateway.pool.connect(origin, timeout)
        except TimeoutError:
            if balancer is not None and target is not None:
                health.note(balancer, target, "timeout")
            raise _TryAgain(504) from None
        except socket.gaierror:
            raise Unreachable(503, "name resolution failed", tried=False) from None
        except OSError:
            if balancer is not None and target is not None:
                health.note(balancer, target, "tcp")
            raise _TryAgain(502) from None

    async def _exchange(
        self,
        connection: UpstreamConnection,
        origin: Origin,
        balancer: Balancer | None,
        target: Target | None,
        host: str,
        service: dict[str, object],
        started: float,
    ) -> Attempt:
        sent = time.monotonic()
        milliseconds = service.get("read_timeout")
        timeout = (milliseconds if isinstance(milliseconds, int) else 60000) / 1000
        await self._send(connection, host, service)
        async with asyncio.timeout(timeout):
            status, reason, version, headers = await connection.read_response()
        waited = time.monotonic() - sent
        if balancer is not None and target is not None:
            health.note(balancer, target, "http", status=status)
            note_latency(target, waited)
        return Attempt(connection, origin, status, reason, version, headers, balancer, target, started, waited)

    async def _send(self, connection: UpstreamConnection, host: str, service: dict[str, object]) -> None:
        context = self.context
        path = context.upstream_path or "/"
        target = f"{path}?{context.query}" if context.query else path
        fields = [("Host", host), *context.upstream_headers]
        body = self.body
        if isinstance(body, BytesBody):
            whole = await body.read()
            self.body = BytesBody(whole)
            if whole or context.method in ("POST", "PUT", "PATCH"):
                fields.append(("Content-Length", str(len(whole))))
            connection.write(print_head(f"{context.method} {target} HTTP/1.1", fields) + whole)
            return
        if body.ended:
            if context.method in ("POST", "PUT", "PATCH"):
                fields.append(("Content-Length", "0"))
            connection.write(print_head(f"{context.method} {target} HTTP/1.1", fields))
            return
        chunked = body.length is None
        fields.append(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(body.length)))
        connection.write(print_head(f"{context.method} {target} HTTP/1.1", fields))
        milliseconds = service.get("write_timeout")
        timeout = (milliseconds if isinstance(milliseconds, int) else 60000) / 1000
        while piece := await body.read():
            connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            async with asyncio.timeout(timeout):
                await connection.drain()
        if chunked:
            connection.write(b"0\r\n\r\n")

    def _choose(self, service: dict[str, object]) -> tuple[Origin, Balancer | None, Target | None, str]:
        """Return where to go and the Host to use."""
        host, port = str(service["host"]), service["port"]
        tls = service.get("protocol") in TLS_PROTOCOLS
        assert isinstance(port, int)
        balancer = self.gateway.balancers.get(host)
        target: Target | None = None
        name = host
        if balancer is not None:
            target = balancer.pick(self._hash_key(balancer), self.tried)
            if target is None:
                raise Unreachable(503, "failure to get a peer from the ring-balancer", tried=False)
            self.tried.add(target.name)
            host, port = target.host, target.port
            name = balancer.upstream.get("host_header") or host
        shown = upstream_host(host, port, tls)
        if balancer is not None and balancer.upstream.get("host_header"):
            shown = str(balancer.upstream["host_header"])
        if self.context.match.route.get("preserve_host"):
            shown = self.context.request.headers.get("host") or shown
            name = shown.partition(":")[0]
        explicit = self.context.upstream_headers.get("host")
        if explicit:
            self.context.upstream_headers.remove("host")
            shown = explicit
        resolved = self.gateway.resolve_host(host)
        return (
            Origin(resolved, port, tls, name if tls else "", bool(service.get("tls_verify"))),
            balancer,
            target,
            shown,
        )

    def _hash_key(self, balancer: Balancer) -> str | None:
        for kind in ("hash_on", "hash_fallback"):
            found = self._hash_source(balancer.upstream, kind)
            if found:
                return found
        return self.context.client_ip if balancer.upstream.get("hash_on") not in (None, "none") else None

    def _hash_source(self, upstream: dict[str, object], kind: str) -> str | None:
        context, source = self.context, upstream.get(kind)
        if source == "ip":
            return context.client_ip
        if source == "consumer":
            return (context.consumer or {}).get("id") or (context.credential or {}).get("id")
        if source == "path":
            return context.path
        name = str(upstream.get(f"{kind}_{source}") or "")
        if source == "header":
            return context.request.headers.get(name.lower())
        if source == "query_arg":
            return next(iter(parse_qs(context.query).get(name, [])), None)
        if source == "uri_capture":
            return context.match.captures.get(name)
        if source == "cookie":
            return self._cookie(upstream)
        return None

    def _cookie(self, upstream: dict[str, object]) -> str:
        name = str(upstream.get("hash_on_cookie") or "")
        jar = SimpleCookie(self.context.request.headers.get("cookie") or "")
        if name in jar:
            return jar[name].value
        value = self.context.request_id
        path = upstream.get("hash_on_cookie_path") or "/"
        self.context.response_headers.append(("Set-Cookie", f"{name}={value}; Path={path}; HttpOnly"))
        return value


class _TryAgain(Exception):
    """This attempt failed in a way that allows another."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


class _Continued(Body):
    """A body whose beginning was read already."""

    def __init__(self, begun: bytes, rest: Body) -> None:
        self._begun = begun
        self._rest = rest
        self.length = rest.length
        self.ended = False

    async def read(self) -> bytes:
        """Return the beginning, then the rest."""
        if self._begun:
            piece, self._begun = self._begun, b""
            return piece
        piece = await self._rest.read()
        self.ended = not piece
        return piece
