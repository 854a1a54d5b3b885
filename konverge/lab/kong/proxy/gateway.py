"""The proxy listener: route, run plugins, forward, answer, count."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson

from konverge.lab.kong.admin.answers import SERVER
from konverge.lab.kong.metrics import RequestMetrics
from konverge.lab.kong.plugins.base import Context, Local
from konverge.lab.kong.plugins.iterating import PASSIVE, PluginTable, Step
from konverge.lab.kong.proxy.attempts import Attempt, Courier, Unreachable
from konverge.lab.kong.proxy.balancer import Balancer, Target, split_target
from konverge.lab.kong.proxy.counters import Counters
from konverge.lab.kong.proxy.errors import MESSAGES, render_error
from konverge.lab.kong.proxy.forwarding import HOP_BY_HOP, build_headers, split_host
from konverge.lab.kong.proxy.tunnel import tunnel
from konverge.lab.kong.proxy.upstream import UpstreamPool
from konverge.lab.kong.router.paths import build_upstream_path, normalise
from konverge.lab.kong.router.routes import Asked
from konverge.lab.kong.router.table import Match, Router
from konverge.lab.kong.state import Snapshot
from konverge.lab.kong.wire.exchange import Reply, Request
from konverge.lab.kong.wire.http1 import Http1Reply
from konverge.lab.kong.wire.message import BadMessage, Headers, print_date
from konverge.lab.kong.wire.message import split_target as split_uri
from konverge.lab.kong.wire.stream import StreamClosed

if TYPE_CHECKING:
    from konverge.lab.kong.node import StandInKong

log = logging.getLogger(__name__)

NO_ROUTE = "no Route matched with those values"
USE_HTTPS = "Please use HTTPS protocol"


class Gateway:
    """What the workers of one node share: the current router, plugins, balancers, pools and counters."""

    def __init__(self, node: StandInKong) -> None:
        self._node = node
        self.pool = UpstreamPool()
        self.counters = Counters()
        self.router = Router(Snapshot())
        self.plugins = PluginTable()
        self.balancers: dict[str, Balancer] = {}
        self._targets: dict[tuple[str, str], Target] = {}

    def resolve_host(self, host: str) -> str:
        """Return the address to dial: inside a pod "localhost" is the pod's loopback."""
        return self._node.settings.pod.resolve_target(host)

    def switch(self, router: Router, plugins: PluginTable) -> None:
        """Route with another snapshot from now on; requests under way keep the old one."""
        self.router, self.plugins = router, plugins

    def rebuild_balancers(self, snapshot: Snapshot) -> None:
        """Take over the upstreams of a snapshot; targets that stay keep their health."""
        found: dict[str, list[Target]] = {upstream["id"]: [] for upstream in snapshot.list("upstreams")}
        names = {upstream["id"]: upstream["name"] for upstream in snapshot.list("upstreams")}
        kept: dict[tuple[str, str], Target] = {}
        for entity in snapshot.list("targets"):
            upstream = (entity.get("upstream") or {}).get("id", "")
            if upstream not in found:
                continue
            key = (upstream, entity["target"])
            host, port = split_target(entity["target"])
            target = self._targets.get(key) or Target(names[upstream], entity["target"], host, port, 0)
            target.weight = entity["weight"]
            kept[key] = target
            found[upstream].append(target)
        self._targets = kept
        self.balancers = {
            upstream["name"]: Balancer(upstream, found[upstream["id"]]) for upstream in snapshot.list("upstreams")
        }

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request; what fails unexpectedly is a 500."""
        try:
            await self._handle(request, reply)
        except (StreamClosed, ConnectionError, BadMessage):
            raise
        except Exception:
            log.exception("request failed: %s %s", request.method, request.target)
            if reply.started:
                reply.abort()
            else:
                await self._say(request, reply, Local(500), secrets.token_hex(16), [])

    async def _handle(self, request: Request, reply: Reply) -> None:
        node = self._node
        request_id = secrets.token_hex(16)
        if node.faults.delay_on == "proxy" and node.faults.delay:
            await asyncio.sleep(node.faults.delay)
        if node.faults.hang_on == "proxy" and node.faults.take("hang"):
            await asyncio.get_running_loop().create_future()
        if node.faults.proxy_status:
            await self._say(request, reply, Local(node.faults.proxy_status), request_id, [])
            return
        router, plugins = self.router, self.plugins
        asked = _ask(request)
        match = router.find(asked)
        if match is None:
            await self._say(request, reply, Local(404, NO_ROUTE), request_id, [])
            return
        refusal = check_protocol(request, match)
        if refusal is not None:
            await self._say(request, reply, refusal, request_id, [])
            return
        await self._proxy(request, reply, router.snapshot, plugins, asked, match, request_id)

    async def _proxy(
        self,
        request: Request,
        reply: Reply,
        snapshot: Snapshot,
        plugins: PluginTable,
        asked: Asked,
        match: Match,
        request_id: str,
    ) -> None:
        route, service = match.route, match.service
        path, query = split_uri(request.target)
        prefix = match.prefix if route["strip_path"] and match.prefix else None
        headers = build_headers(request, path, prefix, request_id)
        context = Context(
            request, match, snapshot, self.counters, request_id, asked.path, query, request.method,
            request.peer.remote[0], headers, self._node.now(),
        )  # fmt: skip
        service_path = (service or {}).get("path") or ""
        context.upstream_path = build_upstream_path(
            service_path, asked.path, match.prefix, route["strip_path"], route.get("path_handling") or "v0"
        )
        record = RequestMetrics((service or {}).get("name") or (service or {}).get("host") or "", _name(route))
        steps, local = await self._access(context, plugins)
        attempt: Attempt | None = None
        try:
            if local is None and service is None:
                local = Local(503, "no Service found with those values")
            if local is not None:
                await self._say_local(context, reply, local, steps)
            else:
                attempt = await self._forward(context, reply, steps, record)
        finally:
            self._log(context, reply, record, attempt)

    async def _access(self, context: Context, plugins: PluginTable) -> tuple[tuple[Step, ...], Local | None]:
        """Run the access phase; authenticating changes which plugins come after."""
        route = context.match.route["id"]
        service = (context.match.service or {}).get("id")
        steps = plugins.chain(route, service, None)
        at = 0
        while at < len(steps):
            step = steps[at]
            before = context.consumer
            local = await step.plugin.access(context, step.config, step.plugin_id) if step.plugin else None
            if local is not None:
                return steps, local
            if context.consumer is not before and context.consumer is not None:
                steps = plugins.chain(route, service, context.consumer["id"])
                at = next((i for i, s in enumerate(steps) if s.priority < step.priority), len(steps))
            else:
                at += 1
        return steps, None

    async def _forward(
        self, context: Context, reply: Reply, steps: tuple[Step, ...], record: RequestMetrics
    ) -> Attempt | None:
        began = time.monotonic()
        try:
            attempt = await Courier(self, context).deliver()
        except Unreachable as failure:
            waited = int((time.monotonic() - began) * 1000)
            local = Local(failure.status, failure.message)
            record.upstream_ms = waited if failure.tried else None
            await self._say_local(context, reply, local, steps, waited if failure.tried else None)
            return None
        record.source = "service"
        record.upstream_ms = int(attempt.waited * 1000)
        complete = False
        try:
            complete = await self._pass_back(context, reply, steps, attempt)
        finally:
            if attempt.target is not None:
                attempt.target.connections -= 1
            if complete:
                self.pool.give_back(attempt.origin, attempt.connection)
            else:
                self.pool.discard(attempt.connection)
        return attempt

    async def _pass_back(self, context: Context, reply: Reply, steps: tuple[Step, ...], attempt: Attempt) -> bool:
        """Send an upstream's answer on; return whether the connection can be used again."""
        request = context.request
        fields = self._response_fields(context, attempt)
        for step in steps:
            if step.plugin is not None:
                step.plugin.header_filter(context, step.config, attempt.status, fields)
        if attempt.status == 101 and isinstance(reply, Http1Reply):
            fields.set("Connection", "upgrade")
            fields.set("Upgrade", attempt.headers.get("upgrade") or "websocket")
            await reply.start(101, fields.items, reason=attempt.reason)
            await tunnel(await reply.hijack(), attempt.connection)
            return False
        body = attempt.connection.frame(context.method, attempt.status, attempt.headers)
        await reply.start(attempt.status, fields.items, reason=attempt.reason)
        timeout = ((context.match.service or {}).get("read_timeout") or 60000) / 1000
        try:
            while not body.ended:
                if attempt.connection.buffer:
                    piece = await body.read()
                else:
                    async with asyncio.timeout(timeout):
                        piece = await body.read()
                if piece:
                    await reply.write(piece)
        except (StreamClosed, TimeoutError, BadMessage):
            # The head is out: all that is left is to let the client see that something is missing.
            reply.abort() if request.version == "2" else _cut(reply)
            return False
        await reply.end()
        connection = (attempt.headers.get("connection") or "").lower()
        return "close" not in connection and (attempt.version == "1.1" or "keep-alive" in connection)

    def _response_fields(self, context: Context, attempt: Attempt) -> Headers:
        drop = HOP_BY_HOP - {"trailer", "trailers"}
        items = [pair for pair in attempt.headers if pair[0].lower() not in drop]
        fields = Headers(items)
        position = next((at for at, pair in enumerate(items) if pair[0].lower() == "content-type"), -1) + 1
        items.insert(position, ("Connection", ""))
        if "date" not in fields:
            fields.add("Date", print_date())
        if "server" not in fields:
            fields.add("Server", SERVER)
        fields.items += context.response_headers
        total = int((time.monotonic() - context.request.started) * 1000)
        upstream = int(attempt.waited * 1000)
        fields.add("X-Kong-Upstream-Latency", str(upstream))
        fields.add("X-Kong-Proxy-Latency", str(max(0, total - upstream)))
        via = fields.get("via")
        fields.set("Via", f"{via}, 1.1 {SERVER}" if via else f"1.1 {SERVER}")
        fields.add("X-Kong-Request-Id", context.request_id)
        return fields

    async def _say_local(
        self, context: Context, reply: Reply, local: Local, steps: tuple[Step, ...], upstream: int | None = None
    ) -> None:
        fields = Headers(context.response_headers + local.headers)
        for step in steps:
            if step.plugin is not None:
                step.plugin.header_filter(context, step.config, local.status, fields)
        await self._say(context.request, reply, local, context.request_id, fields.items, upstream)

    async def _say(
        self,
        request: Request,
        reply: Reply,
        local: Local,
        request_id: str,
        extra: list[tuple[str, str]],
        upstream: int | None = None,
    ) -> None:
        """Send an answer of Kong's own."""
        body, kind = b"", local.content_type
        if local.body is not None:
            body = local.body
        elif local.json is not None:
            body, kind = orjson.dumps(local.json), "application/json; charset=utf-8"
        else:
            message = local.message or MESSAGES.get(local.status, "An unexpected error occurred")
            body, kind = render_error(message, request_id, request.headers.get("accept"))
        if extra is not local.headers and not extra:
            extra = local.headers
        fields = [("Date", print_date())]
        if kind:
            fields.append(("Content-Type", kind))
        fields += [("Connection", ""), *extra, ("Content-Length", str(len(body)))]
        elapsed = int((time.monotonic() - request.started) * 1000)
        if upstream is None:
            fields += [("X-Kong-Response-Latency", str(elapsed)), ("Server", SERVER)]
        else:
            fields += [
                ("Server", SERVER),
                ("X-Kong-Upstream-Latency", str(upstream)),
                ("X-Kong-Proxy-Latency", str(max(0, elapsed - upstream))),
                ("Via", f"1.1 {SERVER}"),
            ]
        fields.append(("X-Kong-Request-Id", request_id))
        await reply.send(local.status, fields, body)

    def _log(self, context: Context, reply: Reply, record: RequestMetrics, attempt: Attempt | None) -> None:
        """The log phase: metrics."""
        match = context.match
        config = self._prometheus(match, context)
        if config is None or not reply.started:
            return
        request = context.request
        record.code = reply.status
        record.consumer = (context.consumer or {}).get("username") or ""
        record.total_ms = int((time.monotonic() - request.started) * 1000)
        record.kong_ms = max(0, record.total_ms - int((attempt.waited if attempt else 0) * 1000))
        if attempt is not None:
            # The time of sending the body on belongs to the upstream as well.
            record.kong_ms = min(record.kong_ms, int((attempt.started - request.started) * 1000))
        record.ingress = _size(request.method + request.target, request.headers) + (request.body.length or 0)
        record.egress = reply.sent
        self._node.metrics.record(config, record)

    def _prometheus(self, match: Match, context: Context) -> dict[str, Any] | None:
        steps = self.plugins.by_name.get(PASSIVE)
        if not steps:
            return None
        route, service = match.route["id"], (match.service or {}).get("id")
        consumer = (context.consumer or {}).get("id")
        chain = self.plugins.chain(route, service, consumer)
        return next((step.config for step in chain if step.name == PASSIVE), None)

    def close(self) -> None:
        """Drop the connections to upstreams."""
        self.pool.close()


def _cut(reply: Reply) -> None:
    reply.close_after()
    reply.abort()


def _ask(request: Request) -> Asked:
    path, query = split_uri(request.target)
    host, authority = split_host(request.headers.get("host"))
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        headers.setdefault(name.lower(), []).append(value)
    return Asked(
        request.method,
        host,
        normalise(path),
        headers,
        request.scheme,
        request.peer.local[1],
        request.peer.sni.lower(),
        parse_qs(query, keep_blank_values=True) if query else {},
        authority,
        request.peer.local[1],
    )


def check_protocol(request: Request, match: Match) -> Local | None:
    """Return the answer to a request that came over the wrong protocol."""
    protocols = match.route.get("protocols") or []
    if request.scheme == "https" or "http" in protocols or "grpc" in protocols:
        return None
    status = match.route.get("https_redirect_status_code") or 426
    if status == 426:
        headers = [("Connection", "Upgrade"), ("Upgrade", "TLS/1.2, HTTP/1.1")]
        return Local(426, USE_HTTPS, headers)
    host, _ = split_host(request.headers.get("host"))
    return Local(status, None, [("Location", f"https://{host}{request.target}")], body=b"")


def _name(route: dict[str, Any]) -> str:
    return str(route.get("name") or route["id"])


def _size(line: str, headers: Headers) -> int:
    return len(line) + 12 + sum(len(name) + len(value) + 4 for name, value in headers)
